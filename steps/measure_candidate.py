"""One candidate of a comparison, from its search to its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import CandidateConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage, study_storage


@cached_step
def measure_candidate(
    dense: Path,
    pool: Path,
    table: Path,
    expected: Path,
    texts: Path,
    tasks: Path,
    config: CandidateConfig,
) -> Annotated[Path, "candidate"]:
    """`candidate.json` and the plan.

    The weights are not kept: a comparison of many would fill any disk.
    """
    from adapruner.comparison import candidate

    with stage("measure_candidate") as out:
        storage = study_storage(config.search.storage)
        shared = candidate.Shared(dense, pool, table, expected, texts, tasks)
        candidate.measure(shared, config, storage, out)
    return out
