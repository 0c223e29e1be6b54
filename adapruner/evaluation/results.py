"""The result of a zero-shot task, and the file with the result of each of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, cast

from adapruner.files import Record, read_json, write_json

ROWS = "rows"
"""The folder of an evaluation with one `<task>.json` per task."""


class TaskResult(Record):
    """The score of a task. A task that failed has an `error` and no metric or score."""

    metric: str | None
    score: float | None
    rows: int
    error: str | None


class RowResult(TypedDict):
    """The result of one row of a task.

    `id` is lm-eval's number of the row. `choice` and `answer` are the indices of the model's choice
    and of the correct choice. `margin` is the correct choice's log-likelihood in nats (per
    character for acc_norm) minus that of the best other one. A row without choices has -1, -1 and
    0.0.
    """

    id: int
    right: bool
    choice: int
    answer: int
    margin: float


def write_rows(directory: Path, task: str, rows: list[RowResult]) -> None:
    """Writes `rows/<task>.json` in `directory`, which exists."""
    folder = directory / ROWS
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{task}.json", rows)


def read_rows(directory: Path) -> dict[str, list[RowResult]]:
    """Task -> row results of the evaluation in `directory`; empty where no task has any."""
    files = sorted((directory / ROWS).glob("*.json"))
    return {file.stem: cast(list[RowResult], read_json(file)) for file in files}
