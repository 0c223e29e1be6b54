"""Tasks are lm-eval's own, and unknown ones are refused before anything runs."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from adapruner.config import EvaluationConfig
from adapruner.errors import UserError
from adapruner.evaluation.tasks.local_rows import SCHEMAS
from adapruner.evaluation.tasks.selection import (
    TaskSelection,
    batch_size_of,
    packaged_tasks,
    resolve_tasks,
    task_manager,
)
from adapruner.hashing import hash_directory
from tests.adapruner.evaluation.tasks.task_rows import write_rows

REAL = Path(__file__).parents[5] / "shared" / "data"


def upstream_task(name: str, rows: list[dict[str, Any]]) -> Any:
    """lm-eval's task by its packaged file, on `rows` instead of the hub's."""

    class OnRows(ConfigurableTask):
        def download(self, dataset_kwargs: Any = None, **kwargs: Any) -> None:
            data = Dataset.from_list(rows)
            self.dataset = {"train": data, "validation": data, "test": data}

    config = load_yaml(packaged_tasks()[name])
    config.pop("tag", None)
    return OnRows(config=config)


def local_task(name: str, data: Path, folder: Path, limit: int) -> Any:
    """The task on the first `limit` local rows in `data`; `folder` gets files for it."""
    (folder / "rows").mkdir(parents=True)
    settings = EvaluationConfig(tasks=(name,), data_dir=str(data), limit=limit)
    resolve_tasks(settings, folder / "rows")
    return task_manager((name,), None, folder / "rows", folder).load([name])["tasks"][name]


def requests_of(task: Any) -> list[Any]:
    task.set_config(key="num_fewshot", value=0)
    task.build_all_requests(rank=0, world_size=1)
    return [(r.doc_id, r.idx, r.request_type, r.arguments) for r in task.instances]


def documents_of(task: Any) -> list[Any]:
    return [
        (task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc))
        for doc in task.eval_docs
    ]


@pytest.mark.parametrize("origin", ["made", "real"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_task_on_local_rows_is_lm_evals_task(name: str, origin: str, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data") if origin == "made" else REAL
    if not data.is_dir():
        pytest.skip("no real rows here")
    with (data / "tasks" / f"{name}.jsonl").open() as file:
        rows = [json.loads(line) for line in islice(file, 60)]
    ours, theirs = local_task(name, data, tmp_path, 60), upstream_task(name, rows)
    requests = requests_of(ours)
    assert requests == requests_of(theirs)
    assert len(requests) >= 2 * len(rows)
    assert documents_of(ours) == documents_of(theirs)
    for part in ("metric_list", "output_type", "target_delimiter"):
        assert ours.get_config(part) == theirs.get_config(part)
    assert ours.get_config("metadata")["version"] == theirs.get_config("metadata")["version"]


def test_a_limit_selects_the_first_rows(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data")
    settings = EvaluationConfig(tasks=("piqa", "boolq"), data_dir=str(data), limit=1)
    selection = resolve_tasks(settings, tmp_path)
    assert TaskSelection.read(tmp_path) == selection
    assert selection.tasks == ("piqa", "boolq")
    for task in selection.tasks:
        first = (data / "tasks" / f"{task}.jsonl").read_text().splitlines()[0]
        assert (tmp_path / f"{task}.jsonl").read_text() == first + "\n"


def test_the_content_hash_depends_on_rows_but_not_on_the_batch_size(tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "data"), tmp_path / "out"
    out.mkdir()

    def resolved_hash(batch_size: int) -> str:
        settings = EvaluationConfig(
            tasks=("piqa",), data_dir=str(data), limit=1, batch_size=batch_size
        )
        resolve_tasks(settings, out)
        assert batch_size_of(out) == batch_size
        return hash_directory(out)

    before = resolved_hash(1)
    assert resolved_hash(8) == before
    path = data / "tasks" / "piqa.jsonl"
    path.write_text(path.read_text().replace("cage", "box", 1))
    assert resolved_hash(8) != before


def test_the_content_hash_depends_on_task_files_but_not_on_compiled_ones(tmp_path: Path) -> None:
    folder, out = tmp_path / "tasks", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    settings = EvaluationConfig(tasks=("made",), tasks_dir=str(folder))

    def resolved_hash() -> str:
        resolve_tasks(settings, out)
        return hash_directory(out)

    (folder / "made.yaml").write_text("task: made\ndoc_to_text: a\n")
    before = resolved_hash()
    (folder / "made.yaml").write_text("task: made\ndoc_to_text: b\n")
    after = resolved_hash()
    assert after != before
    (folder / "tools" / "__pycache__").mkdir(parents=True)
    (folder / "tools" / "__pycache__" / "utils.cpython-311.pyc").write_bytes(b"by the import")
    assert resolved_hash() == after


def test_without_tasks_nothing_depends_on_lm_eval(tmp_path: Path) -> None:
    assert resolve_tasks(EvaluationConfig(), tmp_path) == TaskSelection()
    assert TaskSelection.read(tmp_path) == TaskSelection(tasks=(), lm_eval=None, tasks_dir=None)


def test_names_of_tasks_groups_and_tags_are_accepted(tmp_path: Path) -> None:
    settings = EvaluationConfig(tasks=("lambada_openai", "mmlu", "ai2_arc"))
    assert resolve_tasks(settings, tmp_path).lm_eval
    assert set(SCHEMAS) < set(packaged_tasks())
    assert not {"mmlu", "ai2_arc"} & set(packaged_tasks())


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"tasks": ["arc_esay"]}, ("evaluation.tasks", "'arc_esay'", "'arc_easy'")),
        ({"tasks": ["pika"], "data_dir": "data"}, ("evaluation.tasks", "'pika'", "'piqa'")),
        ({"tasks": ["lambada_openai"], "data_dir": "data"}, ("'lambada_openai'", "data_dir")),
        ({"tasks": ["boolq"], "data_dir": "data"}, ("'boolq'", "data/tasks/boolq.jsonl")),
        ({"tasks": ["piqa"], "data_dir": "data"}, ("data/tasks/piqa.jsonl", "no rows")),
        ({"tasks": ["piqa"], "data_dir": "away"}, ("evaluation.data_dir", "away")),
        ({"tasks": ["piqa"], "tasks_dir": "away"}, ("evaluation.tasks_dir", "away")),
        ({"tasks": ["maid"], "tasks_dir": "own"}, ("evaluation.tasks", "'maid'", "'made'")),
    ],
)
def test_an_invalid_selection_is_refused_with_setting_and_value(
    settings: dict[str, Any],
    parts: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("data/tasks", "own"):
        Path(folder).mkdir(parents=True)
    Path("data/tasks/piqa.jsonl").write_text("\n")
    Path("own/made.yaml").write_text("task: made\n")
    with pytest.raises(UserError) as refused:
        resolve_tasks(EvaluationConfig.model_validate(settings), tmp_path)
    for part in parts:
        assert part in str(refused.value)


def test_task_files_and_local_rows_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"tasks_dir.*data_dir"):
        EvaluationConfig(tasks_dir="a", data_dir="b")
