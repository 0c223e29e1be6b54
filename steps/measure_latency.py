"""The latency table: times of a forward pass against the widths of the layers, on this hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import DeviceConfig, PruningConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.materializer import WithoutWeights, whole
from steps.zenml_support.workspace import stage


@cached_step
def measure_latency(
    checkpoint: WithoutWeights,
    hardware: Path,
    device: DeviceConfig,
    pruning: PruningConfig | None = None,
) -> Annotated[Path, "latency"]:
    """`latency.json`; nothing without `pruning`, which is where the ratio is not of latency.

    `hardware` is part of the cache key. Raises UserError where this step runs on other hardware.
    """
    from adapruner.efficiency.latency_table import Hardware, check_same
    from adapruner.pruning.costs.measure_latency import measure_latency as measure

    with stage("measure_latency") as out:
        if pruning is not None:
            check_same(Hardware.read(hardware), device)
            measure(whole(checkpoint), device, pruning).write(out)
    return out
