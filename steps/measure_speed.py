"""Prefill and decode speed of the pruned model, interleaved with the dense one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import EvaluationConfig, ModelConfig
from steps.cache import cached_step
from steps.workspace import stage


@cached_step
def measure_speed(
    dense: Path, pruned: Path, model: ModelConfig, evaluation: EvaluationConfig
) -> Annotated[Path, "speed"]:
    """`speed.json`; an empty one where the config switches it off."""
    from adapruner import speed

    with stage("measure_speed") as out:
        speed.measure(dense, pruned, model, evaluation, out)
    return out
