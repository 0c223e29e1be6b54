"""Look at the world: which checkpoint, which texts, which task files, and what they hold now.

Never cached. Each of its three tiny results is hashed by content, so what follows is cached as
long as the content behind a name stays the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from adapruner.config import RunConfig
from steps.zenml_support.cache import uncached_step
from steps.zenml_support.workspace import stage


@uncached_step
def resolve_source(
    config: RunConfig, mark: str = "report.json"
) -> tuple[Annotated[Path, "source"], Annotated[Path, "texts"], Annotated[Path, "tasks"]]:
    """`source.json`, `texts.json` and `tasks.json`, each in a directory of its own.

    Beside `tasks.json` are the rows of tasks that are read from local files.
    `mark` is the file that tells an earlier run's results from what is not ours.
    Raises UserError for what can't be found, a device among it, for an MLflow that does not
    answer, and for an output folder that is not ours: before anything costs time.
    """
    from adapruner.models.checkpoint import device_of
    from adapruner.evaluation.tasks import resolve
    from adapruner.data.sources import resolve_texts
    from steps.publishing import results
    from steps.mlflow_support import registered_checkpoints as sources, tracking

    results.check_target(config, mark)
    device_of(config.model)
    tracking.connect()
    with stage("source") as source, stage("texts") as texts, stage("tasks") as tasks:
        _write(source / "source.json", sources.resolve(config.model).model_dump(mode="json"))
        found = {
            given: text.model_dump(mode="json") for given, text in resolve_texts(config).items()
        }
        _write(texts / "texts.json", found)
        resolve(config.evaluation, tasks)
    return source, texts, tasks


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
