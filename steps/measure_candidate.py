"""One candidate of a comparison, from its search to its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.comparison.cells import CandidateConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage, study_storage


@cached_step
def measure_candidate(
    dense: Path,
    pool: Path,
    importance_table: Path,
    gram_matrices: Path,
    teacher_logits: Path,
    test_texts: Path,
    tasks: Path,
    objective_tasks: Path,
    latency: Path,
    config: CandidateConfig,
) -> Annotated[Path, "candidate"]:
    """`candidate.json` and the plan, without weights: those of many candidates fill any disk."""
    from adapruner.comparison.candidate import SharedStages
    from adapruner.comparison.candidate import measure_candidate as measure
    from adapruner.search.inputs import SearchInputs

    inputs = SearchInputs(dense, pool, importance_table, gram_matrices, objective_tasks, latency)
    shared = SharedStages(inputs, teacher_logits, test_texts, tasks)
    storage = study_storage(config.search.storage)
    with stage("measure_candidate") as out:
        measure(shared, config, storage, out)
    return out
