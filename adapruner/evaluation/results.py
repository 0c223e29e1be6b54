"""The results of evaluations, and the files with the results of the rows of zero-shot tasks.

Who reads them needs no module of Transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypedDict, cast

from pydantic import BaseModel, ConfigDict

from adapruner.files import Artifact, Record, read_json, write_json

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


class Evaluation(Artifact):
    """The quality and size of a checkpoint.

    `windows` is the number of windows of each test text, `sequence_length` their tokens,
    `weight_bytes` the size of the weight files.
    """

    FILE: ClassVar[str] = "evaluation.json"

    metrics: dict[str, float]
    tasks: dict[str, TaskResult]
    windows: dict[str, int]
    sequence_length: int
    params: int
    weight_bytes: int

    @property
    def failed(self) -> dict[str, str]:
        """Task -> error, of the tasks that failed."""
        return {name: task.error for name, task in self.tasks.items() if task.error}


class Agreement(Record):
    """`agreement` is a share from 0 to 1, `kl_divergence` in nats per token."""

    agreement: float
    kl_divergence: float


class Continuation(BaseModel):
    """A prompt and, by model (`dense`, `pruned`, `finetuned`), its continuation."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, str]

    prompt: str


class TextComparison(BaseModel):
    """A test text's compared windows and positions and, by model, the agreement with dense."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Agreement]

    windows: int
    positions: int


class Behaviour(Artifact):
    """Continuations of the prompts, and comparisons by test text."""

    FILE: ClassVar[str] = "behaviour.json"

    continuations: tuple[Continuation, ...]
    new_tokens: int
    texts: dict[str, TextComparison]
