"""What a reconstruction method computes its correction from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from adapruner.config import DeviceConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.models.structures import LayerModules
from adapruner.pruning.plan import PruningPlan

Correction = Callable[[LayerModules], None]
"""Changes one layer of the cut model in place."""


@dataclass(frozen=True)
class Reconstruction:
    """A correction for each layer, in order, and fields of the config to set to true.

    The corrections of a streamed model are computed when they are requested, layer by layer.
    """

    layers: Iterable[Correction]
    switches: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReconstructionRequest:
    """The dense checkpoint, the plan, the pool, and the settings.

    `gram_matrices` is the directory of the matrices of the trials, where the settings use it.
    """

    checkpoint: Path
    plan: PruningPlan
    pool: Pool
    device: DeviceConfig
    settings: ReconstructionConfig
    gram_matrices: Path | None = None
