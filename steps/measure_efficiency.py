"""What the pruned model costs beside the dense one: size, FLOPs, memory, prefill and decode."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import EvaluationConfig, ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def measure_speed(
    dense: Path, pruned: Path, model: ModelConfig, evaluation: EvaluationConfig
) -> Annotated[Path, "speed"]:
    """`cost.json` and `speed.json`; the latter is empty where the config switches speed off."""
    from adapruner.efficiency import cost, speed

    with stage("measure_speed") as out:
        cost.measure(dense, pruned, model, evaluation, out)
        speed.measure(dense, pruned, model, evaluation, out)
    return out
