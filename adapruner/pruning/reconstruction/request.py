"""What a reconstruction method computes its correction from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapruner.config import DeviceConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.pruning.plan import PruningPlan

Correction = Callable[[Any], None]
"""Changes the cut model in place."""


@dataclass(frozen=True)
class ReconstructionRequest:
    """The dense checkpoint, the plan, the pool, and the settings."""

    checkpoint: Path
    plan: PruningPlan
    pool: Pool
    device: DeviceConfig
    settings: ReconstructionConfig
