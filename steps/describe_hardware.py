"""The hardware that speeds are measured on, which is part of the cache key of the measurements.

The step is never cached. On a cluster it needs the same kind of node as the steps that measure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import DeviceConfig
from steps.zenml_support.cache import uncached_step
from steps.zenml_support.workspace import stage


@uncached_step
def describe_hardware(device: DeviceConfig) -> Annotated[Path, "hardware"]:
    """`hardware.json`. Raises UserError for a device that does not exist."""
    from adapruner.efficiency.latency_table import describe_hardware as describe

    with stage("describe_hardware") as out:
        describe(device).write(out)
    return out
