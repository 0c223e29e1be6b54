"""Questions are lm-eval's requests, with the correct choice of each row."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.errors import UserError
from adapruner.evaluation.tasks.questions import Question, questions_of, read_questions
from adapruner.evaluation.tasks.selection import packaged_tasks, task_manager
from tests.adapruner.evaluation.tasks.task_files import write_task_files
from tests.adapruner.evaluation.tasks.task_rows import ROWS, write_rows

RIGHT = {
    "piqa": ("Question: Cool the tea\nAnswer:", " Wait."),
    "boolq": ("Snow -- Snow is ice, é.\nQuestion: is snow warm?\nAnswer:", " no"),
    "hellaswag": ("Rowing: Two women sit in a boat. They", " row."),
    "winogrande": ("The cup", " fell."),
    "arc_easy": ("Question: Which is a mammal?\nAnswer:", " a whale"),
    "arc_challenge": ("Question: What melts ice?\nAnswer:", " heat"),
    "openbookqa": ("The sun gives", " light"),
}
"""Prompt and right answer of the second row of each task."""


def test_the_right_answer_of_every_task_follows_its_prompt(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "data") / "tasks"
    questions = read_questions(tuple(RIGHT), rows)
    assert {task: found[1].right for task, found in questions.items()} == RIGHT
    for task, found in questions.items():
        assert [len(q.requests) for q in found] == [len(q.choices) for q in found]
        assert len(found) == len(ROWS[task])
        assert {q.task for q in found} == {task}
    assert questions["hellaswag"][0].metric == "acc_norm"
    assert questions["arc_easy"][0].metric == "acc"
    assert len(read_questions(("piqa",), rows, 1)["piqa"]) == 1


def test_a_margin_is_per_character_where_the_score_is_acc_norm() -> None:
    requests = (("c", " ab"), ("c", " abcd"), ("c", " a"))
    choices = ("ab", "abcd", "a")
    plain = Question("made", requests, choices, 1, "acc")
    assert plain.margin([-3.0, -2.0, -1.0]) == pytest.approx(-1.0)
    per_character = Question("made", requests, choices, 1, "acc_norm")
    assert per_character.margin([-3.0, -2.0, -1.0]) == pytest.approx(-2 / 4 + 1.0)


def test_a_task_without_choices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_task_files(tmp_path / "tasks")
    text = (folder / "made.yaml").read_text()
    text = text.replace("multiple_choice", "loglikelihood").replace("acc,", "perplexity,")
    (folder / "made.yaml").write_text(text)
    task = task_manager(("made",), str(folder), tmp_path, tmp_path).load(["made"])["tasks"]["made"]
    with pytest.raises(UserError, match=r"search\.tasks.*'made' has no choices"):
        questions_of(task)
    assert "made" not in packaged_tasks()
