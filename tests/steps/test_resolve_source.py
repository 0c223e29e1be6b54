from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.data.texts.sources import TextSources
from adapruner.errors import UserError
from adapruner.evaluation.tasks.objective_rows import ObjectiveTasks
from adapruner.evaluation.tasks.selection import TaskSelection
from adapruner.hashing import hash_directory
from adapruner.models.storage.sources import CheckpointSource
from steps.resolve_source import resolve_source
from tests.adapruner.conftest import Workplace
from tests.adapruner.evaluation.tasks.task_rows import write_rows
from tests.steps.configs import minimal_config


def test_an_output_folder_with_other_files_is_reported_before_the_source_is_read(
    tmp_path: Path,
) -> None:
    target = tmp_path / "runs" / "run"
    target.mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=str(target)):
        resolve_source.entrypoint(minimal_config(tmp_path))


def test_checkpoint_texts_and_tasks_are_resolved_to_their_content(
    workplace: Workplace, stages_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{stages_folder / 'mlflow.db'}")
    text = stages_folder / "text.txt"
    text.write_text("some words\n")
    model = {"source": str(workplace.checkpoint), "device": "cpu"}
    config = minimal_config(stages_folder, model=model, calibration={"source": str(text)})
    first = resolve_source.entrypoint(config)
    text.write_text("other words\n")
    second = resolve_source.entrypoint(config)
    sources = [CheckpointSource.read(directories[0]) for directories in (first, second)]
    texts = [TextSources.read(directories[1]).sources[str(text)] for directories in (first, second)]
    assert sources[0].uri == str(workplace.checkpoint)
    assert sources[0] == sources[1]
    assert texts[0].content_hash != texts[1].content_hash
    assert TaskSelection.read(first[2]).tasks == ()
    assert ObjectiveTasks.read(first[3]) == ObjectiveTasks()


def test_objective_rows_are_resolved_to_their_content(
    workplace: Workplace, stages_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{stages_folder / 'mlflow.db'}")
    text = stages_folder / "text.txt"
    text.write_text("some words\n")
    rows = write_rows(stages_folder / "rows")
    config = minimal_config(
        stages_folder,
        model={"source": str(workplace.checkpoint), "device": "cpu"},
        calibration={"source": str(text)},
        search={"objective": "margin", "tasks": ["piqa"], "rows_dir": str(rows)},
    )
    *_, tasks, objective = resolve_source.entrypoint(config)
    file = rows / "tasks" / "piqa.jsonl"
    file.write_text(file.read_text().replace("cage", "box"))
    *_, same_tasks, other_objective = resolve_source.entrypoint(config)
    *_, unused = resolve_source.entrypoint(config, has_search=False)
    assert ObjectiveTasks.read(objective).tasks == ("piqa",)
    assert ObjectiveTasks.read(unused) == ObjectiveTasks()
    assert hash_directory(tasks) == hash_directory(same_tasks)
    assert hash_directory(objective) != hash_directory(other_objective)
