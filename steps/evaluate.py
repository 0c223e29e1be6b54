"""Perplexity and zero-shot tasks of one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import EvaluationConfig, ModelConfig
from steps.cache import cached_step
from steps.workspace import stage


@cached_step
def evaluate(
    checkpoint: Path,
    pool: Path,
    tasks: Path,
    model: ModelConfig,
    evaluation: EvaluationConfig,
    seed: int,
) -> Annotated[Path, "metrics"]:
    """`metrics.json` of the checkpoint in `checkpoint`, or in a `checkpoint/` folder below it.

    `tasks` is an input because the task files' content is part of what the numbers depend on.
    """
    from adapruner import evaluation as library

    below = checkpoint / "checkpoint"
    with stage("evaluate") as out:
        library.evaluate(
            below if below.is_dir() else checkpoint, pool, model, evaluation, seed, out
        )
    return out
