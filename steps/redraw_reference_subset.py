"""The importance table with another seed's reference subset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def rereference(
    checkpoint: Path, pool: Path, table: Path, model: ModelConfig, seed: int
) -> Annotated[Path, "importance_table"]:
    """The table again; only the samples that `seed` draws are run."""
    from adapruner.importance import statistics as importance

    with stage("rereference") as out:
        importance.rereference(checkpoint, pool, table, model, seed, out)
    return out
