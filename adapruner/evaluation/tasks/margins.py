"""The task margin: by how much a model prefers the right choice, on rows that stay the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from adapruner.evaluation.tasks.objective_rows import ObjectiveTasks
from adapruner.evaluation.tasks.questions import Question, read_questions
from adapruner.evaluation.tasks.selection import batch_size_of
from adapruner.evaluation.tasks.shared_context_lm import Pair, SharedContextLM

BATCH_ROWS = 64
"""Rows of a batch: few enough that a trial can stop early, enough to be packed with little
padding."""


class TaskMargins:
    """The margins of fixed rows of tasks, for a model that may change from call to call.

    `questions` are the rows in the order of the margins. Any first part of them has the rows of the
    tasks in about the same proportion, so that its mean estimates the mean over all. Requests are
    tokenised at the first call; nothing that depends on weights is kept.
    """

    def __init__(
        self,
        tokenizer: Any,
        questions: Sequence[Sequence[Question]],
        max_length: int,
        batch_size: int,
    ) -> None:
        """`questions`: the rows of each task. `max_length` and `batch_size`: as in evaluation."""
        self.questions = _mixed(questions)
        self._settings = {
            "tokenizer": tokenizer, "max_length": max_length, "batch_size": batch_size
        }  # fmt: skip
        self._pairs: list[list[Pair]] = []
        self._lm: SharedContextLM | None = None

    @classmethod
    def read(cls, tokenizer: Any, directory: Path, part: slice = slice(None)) -> TaskMargins:
        """The margins of the rows in the directory of `resolve_objective_tasks`, with tasks.

        `part` selects rows of each task.
        """
        resolved = ObjectiveTasks.read(directory)
        questions = [rows[part] for rows in read_questions(resolved.tasks, directory).values()]
        return cls(tokenizer, questions, resolved.max_length, batch_size_of(directory))

    def batches(self, model: Any) -> Iterator[list[float]]:
        """The margin of each row, see `Question.margin`; NaN where logits are not numbers.

        In batches of about BATCH_ROWS rows, each of which is computed when it is requested.
        """
        lm = self._lm_of(model)
        total = len(self.questions)
        count = max(1, round(total / BATCH_ROWS))
        for i in range(count):
            part = slice(i * total // count, (i + 1) * total // count)
            scores = iter(lm.scores(list(chain.from_iterable(self._pairs[part]))))
            yield [
                question.margin([next(scores) for _ in question.choices])
                for question in self.questions[part]
            ]

    def _lm_of(self, model: Any) -> SharedContextLM:
        """lm-eval's wrapper of `model`; the first one also tokenises the requests."""
        if self._lm is None or self._lm.model is not model:
            self._lm = SharedContextLM(pretrained=model, device=str(model.device), **self._settings)
        if not self._pairs:
            encode = self._lm.encode
            self._pairs = [[encode(*pair) for pair in q.requests] for q in self.questions]
        return self._lm


def task_scales(questions: Sequence[Question], margins: Sequence[float]) -> list[float]:
    """For each row the root mean square of its task's `margins`; 1 where that is 0 or no number.

    It gives the margins of all tasks one unit, whether they are in nats or in nats per character.
    """
    squares: dict[str, list[float]] = {}
    for question, margin in zip(questions, margins, strict=True):
        squares.setdefault(question.task, []).append(margin**2)
    scales = {task: math.sqrt(fmean(values)) for task, values in squares.items()}
    return [scale if (scale := scales[question.task]) > 0 else 1.0 for question in questions]


def row_losses(margins: Iterable[float], scales: Iterable[float]) -> list[float]:
    """-tanh(margin / scale) for each row: between -1, clearly right, and 1, clearly wrong.

    As in an accuracy, a row that is clearly right or wrong cannot outweigh others; unlike in an
    accuracy, a row near the boundary counts before it changes sides.
    """
    return [-math.tanh(margin / scale) for margin, scale in zip(margins, scales, strict=True)]


def _mixed(tasks: Sequence[Sequence[Question]]) -> list[Question]:
    """The rows of all tasks, each task spread evenly over the whole."""
    places = [
        ((i + 0.5) / len(rows), number, question)
        for number, rows in enumerate(tasks)
        for i, question in enumerate(rows)
    ]
    return [question for *_, question in sorted(places, key=lambda place: place[:2])]
