"""Objective rows are drawn with the seed, and never evaluated ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from adapruner.config import RunConfig
from adapruner.errors import UserError
from adapruner.evaluation.tasks.objective_rows import (
    ObjectiveTasks,
    drawn_from_split,
    resolve_objective_tasks,
    unscored_split,
)
from adapruner.evaluation.tasks.questions import questions_of, read_questions
from adapruner.evaluation.tasks.selection import batch_size_of, packaged_tasks, resolve_tasks
from adapruner.hashing import hash_directory
from tests.adapruner.evaluation.tasks.task_rows import ROWS, write_rows

REAL = Path(__file__).parents[5] / "shared" / "data"


def config(seed: int = 0, evaluation: dict[str, Any] | None = None, **search: Any) -> RunConfig:
    values = {
        "name": "run",
        "seed": seed,
        "model": {"source": "m"},
        "calibration": {"source": "t.txt"},
        "search": {"objective": "margin", **search} if search else {},
        "evaluation": evaluation or {},
        "registry": {"name": "r"},
    }
    return RunConfig.model_validate(values)


def resolve(config: RunConfig, folder: Path) -> Path:
    """The directory of the objective rows, in the new folder `folder`."""
    tasks, out = folder / "tasks", folder / "objective"
    for directory in (folder, tasks, out):
        directory.mkdir()
    resolve_tasks(config.evaluation, tasks)
    resolve_objective_tasks(config, tasks, out)
    return out


def write_questions(folder: Path, numbers: range) -> Path:
    """Rows of piqa with these numbers in their text, laid out as a folder of local rows."""
    rows = [
        {"goal": f"Open box {i}", "sol1": "Pull.", "sol2": f"Say {i}.", "label": i % 2}
        for i in numbers
    ]
    (folder / "tasks").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "tasks" / "piqa.jsonl").write_text(lines)
    return folder


SCIENCE = [
    {
        "support": f"Ice is water, says page {i}.",
        "question": "What is ice?",
        "distractor1": "air",
        "distractor2": "a rock",
        "distractor3": "a stone",
        "correct_answer": "water",
    }
    for i in range(3)
]
"""Rows of sciq, a task that can't be read from local files."""


def task_of(name: str, **splits: str | None) -> Any:
    """lm-eval's task with other splits, on rows written for the tests."""

    class OnRows(ConfigurableTask):
        def download(self, dataset_kwargs: Any = None, **kwargs: Any) -> None:
            data = Dataset.from_list(SCIENCE if name == "sciq" else ROWS[name])
            self.dataset = dict.fromkeys(("train", "validation", "test"), data)

    settings = load_yaml(packaged_tasks()[name]) | splits
    settings.pop("tag", None)
    return OnRows(config=settings)


def test_rows_are_drawn_with_the_seed(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", range(40))
    search = {"tasks": ["piqa"], "rows_dir": str(data), "rows": 8}
    directories = [
        resolve(config(seed, **search), tmp_path / str(i)) for i, seed in enumerate("001")
    ]
    lines = [(directory / "piqa.jsonl").read_text().splitlines() for directory in directories]
    assert len(set(lines[0])) == 8
    assert set(lines[0]) < set((data / "tasks" / "piqa.jsonl").read_text().splitlines())
    assert lines[0] == lines[1] != lines[2]
    assert hash_directory(directories[0]) == hash_directory(directories[1])
    assert hash_directory(directories[0]) != hash_directory(directories[2])


def test_a_file_with_fewer_rows_is_used_whole(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data")
    tasks = ["piqa", "winogrande"]
    evaluation = {"max_length": 512, "batch_size": 3}
    out = resolve(config(0, evaluation, tasks=tasks, rows_dir=str(data)), tmp_path / "out")
    resolved = ObjectiveTasks.read(out)
    assert resolved.tasks == ("piqa", "winogrande") and resolved.lm_eval
    assert (resolved.max_length, batch_size_of(out)) == (512, 3)
    for task in tasks:
        rows = [json.loads(line) for line in (out / f"{task}.jsonl").read_text().splitlines()]
        assert sorted(map(str, rows)) == sorted(map(str, ROWS[task]))


def test_without_tasks_nothing_is_read(tmp_path: Path) -> None:
    out = resolve(config(), tmp_path / "out")
    assert ObjectiveTasks.read(out) == ObjectiveTasks()
    assert {path.name for path in out.iterdir()} == {"objective_tasks.json", "batch_size.json"}


def test_rows_that_no_search_uses_are_not_read(tmp_path: Path) -> None:
    settings = config(tasks=["piqa"], rows_dir=str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"search\.rows_dir"):
        resolve_objective_tasks(settings, tmp_path, tmp_path)
    resolve_objective_tasks(settings, tmp_path, tmp_path, is_used=False)
    assert ObjectiveTasks.read(tmp_path) == ObjectiveTasks()


def test_rows_beside_the_evaluated_ones_are_accepted(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", range(10))
    others = write_questions(tmp_path / "others", range(10, 20))
    evaluation = {"tasks": ["piqa"], "data_dir": str(data)}
    out = resolve(config(0, evaluation, tasks=["piqa"], rows_dir=str(others)), tmp_path / "out")
    assert len((out / "piqa.jsonl").read_text().splitlines()) == 10


def test_rows_after_the_evaluated_limit_are_accepted(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", range(20))
    later = write_questions(tmp_path / "later", range(10, 20))
    evaluation = {"tasks": ["piqa"], "data_dir": str(data), "limit": 10}
    search = {"tasks": ["piqa"], "rows_dir": str(later)}
    resolve(config(0, evaluation, **search), tmp_path / "out")
    with pytest.raises(UserError, match="10 of 10 rows of 'piqa' are evaluated too"):
        resolve(config(0, evaluation | {"limit": 20}, **search), tmp_path / "more")


def test_overlap_names_task_count_and_an_example(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", range(10))
    others = write_questions(tmp_path / "others", range(8, 20))
    evaluation = {"tasks": ["piqa"], "data_dir": str(data)}
    with pytest.raises(UserError) as refused:
        resolve(config(0, evaluation, tasks=["piqa"], rows_dir=str(others)), tmp_path / "out")
    message = str(refused.value)
    assert "\n" not in message
    for part in ("2 of 12 rows of 'piqa'", "Open box", "Answer: ", "search.rows_dir"):
        assert part in message


def test_a_row_with_another_wrong_choice_is_still_the_evaluated_one(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", range(2))
    others = write_questions(tmp_path / "others", (0, 5))
    path = others / "tasks" / "piqa.jsonl"
    path.write_text(path.read_text().replace("Say 0.", "Sing."))
    evaluation = {"tasks": ["piqa"], "data_dir": str(data)}
    with pytest.raises(UserError, match="1 of 2 rows"):
        resolve(config(0, evaluation, tasks=["piqa"], rows_dir=str(others)), tmp_path / "out")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real rows here")
@pytest.mark.parametrize("task", ["winogrande", "boolq", "openbookqa"])
def test_parts_of_a_real_file_are_disjoint_and_the_whole_is_not(task: str, tmp_path: Path) -> None:
    lines = (REAL / "tasks" / f"{task}.jsonl").read_text().splitlines(keepends=True)
    for name, part in (("even", lines[::2]), ("odd", lines[1::2])):
        (tmp_path / name / "tasks").mkdir(parents=True)
        (tmp_path / name / "tasks" / f"{task}.jsonl").write_text("".join(part))
    evaluation = {"tasks": [task], "data_dir": str(tmp_path / "even")}
    odd, even = (
        {"tasks": [task], "rows_dir": str(tmp_path / name), "rows": 50} for name in ("odd", "even")
    )
    out = resolve(config(0, evaluation, **odd), tmp_path / "out")
    assert len((out / f"{task}.jsonl").read_text().splitlines()) == 50
    with pytest.raises(UserError, match="50 of 50 rows"):
        resolve(config(0, evaluation, **even), tmp_path / "same")


def test_the_split_of_the_hub_is_never_the_scored_one() -> None:
    assert unscored_split(task_of("piqa")) == "train"
    assert unscored_split(task_of("arc_easy", training_split=None)) == "validation"
    with pytest.raises(UserError, match=r"'piqa'.*'validation'.*search\.rows_dir"):
        unscored_split(task_of("piqa", training_split=None))
    with pytest.raises(UserError, match="'test'"):
        unscored_split(task_of("arc_easy", training_split="test", validation_split=None))


@pytest.mark.parametrize("name", ["sciq", "arc_challenge", "winogrande"])
def test_rows_of_a_split_keep_their_questions(name: str, tmp_path: Path) -> None:
    task = task_of(name)
    lines = drawn_from_split(task, 9, seed=0)
    (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    found, expected = read_questions((name,), tmp_path)[name], questions_of(task)
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert len(found) == len(task.eval_docs)
    assert drawn_from_split(task, 1, seed=0) == lines[:1]


def test_a_hub_that_can_not_be_reached_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'piqa' can't be read from the hub.*search\.rows_dir"):
        resolve(config(tasks=["piqa"]), tmp_path / "out")


@pytest.mark.parametrize(
    ("search", "parts"),
    [
        ({"tasks": ["arc_esay"]}, ("search.tasks", "'arc_esay'", "'arc_easy'")),
        ({"tasks": ["mmlu"]}, ("search.tasks", "'mmlu'", "single task")),
        ({"tasks": ["pika"], "rows_dir": "data"}, ("search.tasks", "'pika'", "'piqa'")),
        ({"tasks": ["boolq"], "rows_dir": "data"}, ("search.rows_dir", "data/tasks/boolq.jsonl")),
        ({"tasks": ["piqa"], "rows_dir": "data"}, ("data/tasks/piqa.jsonl", "no rows")),
        ({"tasks": ["piqa"], "rows_dir": "away"}, ("search.rows_dir", "away")),
    ],
)
def test_invalid_rows_are_refused_with_setting_and_value(
    search: dict[str, Any],
    parts: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/tasks").mkdir(parents=True)
    Path("data/tasks/piqa.jsonl").write_text("\n")
    with pytest.raises(UserError) as refused:
        resolve(config(**search), tmp_path / "out")
    for part in parts:
        assert part in str(refused.value)
