"""The pruning plan: the Bayesian search over domains and importance metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import PlanConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage, study_storage


@cached_step
def search(
    checkpoint: Path,
    pool: Path,
    importance_table: Path,
    gram_matrices: Path,
    objective_tasks: Path,
    config: PlanConfig,
) -> Annotated[Path, "pruning_plan"]:
    """The selected plan and the trials; an interrupted study continues where it stopped."""
    from adapruner.search.inputs import SearchInputs
    from adapruner.search.planner import search as run_search

    inputs = SearchInputs(checkpoint, pool, importance_table, gram_matrices, objective_tasks)
    storage = study_storage(config.search.storage)
    with stage("search") as out:
        run_search(inputs, config, storage, out)
    return out
