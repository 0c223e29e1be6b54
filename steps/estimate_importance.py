"""One pass over the pool: the score of every structure for every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def estimate_importance(
    checkpoint: Path, pool: Path, model: ModelConfig, reference_size: int, seed: int
) -> Annotated[Path, "importance_table"]:
    """The importance table; `reference_size` samples make the reference set."""
    from adapruner.importance import statistics as importance

    with stage("estimate_importance") as out:
        importance.estimate(checkpoint, pool, model, reference_size, seed, out)
    return out
