"""What a run reads, as it is now: its checkpoint, its texts and the rows of its tasks."""

from __future__ import annotations

from pathlib import Path

from adapruner.config import RunConfig
from adapruner.data.texts.sources import resolve_texts
from adapruner.evaluation.tasks.objective_rows import resolve_objective_tasks
from adapruner.evaluation.tasks.selection import resolve_tasks
from steps.mlflow_support import registered_checkpoints
from steps.zenml_support.workspace import fetched

INPUTS = ("source", "texts", "tasks", "objective_tasks")
"""The directories that `write_inputs` fills, in the order of its parameters."""


def write_inputs(
    config: RunConfig,
    source: Path,
    texts: Path,
    tasks: Path,
    objective_tasks: Path,
    *,
    has_search: bool,
) -> None:
    """Writes `<name>.json` to each of the directories, which exist.

    The rows of tasks that have local files are beside `tasks.json`, the rows of the search's
    objective beside `objective_tasks.json`, unless the run has no search. Files behind URLs are
    downloaded. Raises UserError for a source or task that does not exist, and objective rows that
    are evaluated.
    """
    registered_checkpoints.resolve(config.model).write(source)
    resolve_texts(config, fetched()).write(texts)
    resolve_tasks(config.evaluation, tasks)
    resolve_objective_tasks(config, tasks, objective_tasks, is_used=has_search)
