"""Cost and speed of the pruned model relative to the dense one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import EvaluationConfig, ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def measure_efficiency(
    dense: Path,
    pruned: Path,
    hardware: Path,
    model: ModelConfig,
    evaluation: EvaluationConfig,
) -> Annotated[Path, "efficiency"]:
    """`cost.json`, and `speed.json` unless `evaluation.speed` is off.

    Speed is also measured in the setting of a target of latency. `hardware` is part of the cache
    key. Raises UserError where speed is measured on other hardware.
    """
    from adapruner.efficiency.cost import measure_cost
    from adapruner.efficiency.latency_table import Hardware, check_same
    from adapruner.efficiency.speed import measure_speed
    from adapruner.models.storage.checkpoint import timed_tokens

    with stage("measure_efficiency") as out:
        measure_cost(dense, pruned, model, evaluation).write(out)
        if evaluation.speed:
            check_same(Hardware.read(hardware), model.device_config)
            timed = timed_tokens(pruned)
            others = [] if timed is None else [(1, timed)]
            measure_speed(dense, pruned, model, evaluation, others).write(out)
    return out
