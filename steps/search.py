"""Which structures go: the Bayesian search over samples and importance metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig, PruningConfig, ReconstructionConfig, SearchConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage, study_storage


@cached_step
def search(
    checkpoint: Path,
    pool: Path,
    table: Path,
    model: ModelConfig,
    search: SearchConfig,
    pruning: PruningConfig,
    reconstruction: ReconstructionConfig,
    seed: int,
) -> Annotated[Path, "pruning_plan"]:
    """The best plan and the trials that led to it; the study goes on where it stopped."""
    from adapruner.search import search as library

    storage = study_storage(search.storage)
    with stage("search") as out:
        given = (checkpoint, pool, table, model, search, pruning, reconstruction, seed)
        library.search(*given, storage, out)
    return out
