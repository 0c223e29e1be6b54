"""The importance table with the reference subset of another seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def redraw_reference_subset(
    checkpoint: Path, pool: Path, importance_table: Path, model: ModelConfig, seed: int
) -> Annotated[Path, "importance_table"]:
    """The table with the subset that `seed` draws; only the samples of that subset are run."""
    from adapruner.data.pool import Pool
    from adapruner.importance.statistics import with_reference
    from adapruner.importance.table import ImportanceTable
    from adapruner.models.streamed.choice import load_or_stream

    table, tokens = ImportanceTable.read(importance_table), Pool.read(pool).calibration
    with stage("redraw_reference_subset") as out:
        dense = load_or_stream(checkpoint, model, "2 reads")
        with_reference(dense, tokens, table, seed).write(out)
    return out
