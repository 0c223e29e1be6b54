"""Resolves the checkpoint, the texts and the tasks of a run, and checks what it needs.

The step is never cached. Its four small results are hashed by content, so the steps after it stay
cached as long as the content behind a name is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import RunConfig
from steps.zenml_support.cache import uncached_step
from steps.zenml_support.workspace import runs_in_containers, stage


@uncached_step
def resolve_source(
    config: RunConfig, result_file: str = "report.json", has_search: bool = True
) -> tuple[
    Annotated[Path, "source"],
    Annotated[Path, "texts"],
    Annotated[Path, "tasks"],
    Annotated[Path, "objective_tasks"],
]:
    """Four directories with what `inputs.write_inputs` writes.

    `result_file` identifies an output folder with results of the same kind of run, which may be
    replaced. Raises UserError, before any long computation, like `write_inputs`; also for an MLflow
    server or a database of studies that does not answer, and an output folder with other content.
    """
    from steps.mlflow_support import tracking
    from steps.mlflow_support.inputs import write_inputs
    from steps.publishing import results

    if not runs_in_containers():
        results.check_target(config, result_file)
    tracking.connect()
    if has_search and config.search.storage is not None:
        from adapruner.search.parallel.storage import open_storage  # it imports Optuna

        open_storage(config.search.storage)
    with (
        stage("source") as source,
        stage("texts") as texts,
        stage("tasks") as tasks,
        stage("objective_tasks") as objective_tasks,
    ):
        write_inputs(config, source, texts, tasks, objective_tasks, has_search=has_search)
    return source, texts, tasks, objective_tasks
