"""Rows of multiple-choice tasks as questions: what lm-eval asks the model for each choice."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapruner.errors import UserError
from adapruner.evaluation.tasks.scoring import (
    answer_of,
    margin_of,
    row_scores,
    score_metric,
    set_examples,
)
from adapruner.evaluation.tasks.selection import task_manager


@dataclass(frozen=True)
class Question:
    """One row of a task.

    `requests` holds context and continuation of each of the `choices`, `answer` is the index of the
    correct one, and `metric` is the task's score.
    """

    task: str
    requests: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]
    answer: int
    metric: str

    @property
    def right(self) -> tuple[str, str]:
        """Context and continuation of the correct choice."""
        return self.requests[self.answer]

    def margin(self, log_likelihoods: Sequence[float]) -> float:
        """The margin of the correct choice, from the log-likelihoods of all choices in nats.

        It is in nats, per character for acc_norm.
        """
        return margin_of(row_scores(log_likelihoods, self.choices, self.metric), self.answer)


def read_questions(
    names: tuple[str, ...], rows: Path, limit: int | None = None
) -> dict[str, list[Question]]:
    """Task -> its questions, in the order of the rows; at most `limit` of each task.

    The rows of `names`, tasks of lm-eval, are in `<rows>/<task>.jsonl`, else on the hub. Raises
    UserError for a task without choices.
    """
    with tempfile.TemporaryDirectory() as scratch:
        manager = task_manager(names, None, rows, Path(scratch))
        return {name: questions_of(manager.load([name])["tasks"][name], limit) for name in names}


def questions_of(task: Any, limit: int | None = None) -> list[Question]:
    """The questions of lm-eval's `task`. Raises UserError for a task without choices."""
    check_choices(task)
    set_examples(task)
    task.build_all_requests(limit=limit, rank=0, world_size=1)
    requests: dict[int, list[tuple[str, str]]] = {}
    docs = {}
    for instance in task.instances:
        requests.setdefault(instance.doc_id, []).append(instance.args)
        docs[instance.doc_id] = instance.doc
    metric = score_metric(task.task_name, list(task.aggregation()))
    return [_question(task, docs[number], requests[number], metric) for number in sorted(docs)]


def check_choices(task: Any) -> None:
    """Raises UserError for a task without choices, which has no margin."""
    if task.OUTPUT_TYPE != "multiple_choice":
        raise UserError(
            f"search.tasks: '{task.task_name}' has no choices, so it has no margin; expected "
            "multiple-choice tasks"
        )


def _question(
    task: Any, doc: dict[str, Any], requests: list[tuple[str, str]], metric: str
) -> Question:
    choices = task.doc_to_choice(doc)
    return Question(
        task=task.task_name,
        requests=tuple(requests[: len(choices)]),  # more of them serve acc_mutual_info alone
        choices=tuple(choices),
        answer=answer_of(task, doc, choices),
        metric=metric,
    )
