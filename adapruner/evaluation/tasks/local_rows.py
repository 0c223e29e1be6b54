"""Rows of zero-shot tasks from local files: `<data_dir>/tasks/<task>.jsonl`, checked row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapruner.errors import UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """The fields of a task's rows.

    `split` is the split that lm-eval scores, `fields` maps a dotted field name to its types,
    `answer` is the field of the correct answer, and `answers` returns its valid values in a row.
    """

    split: str
    fields: dict[str, tuple[type, ...]]
    answer: str
    answers: Callable[[Row], list[Any]]


def _fields(*texts: str, **others: tuple[type, ...]) -> dict[str, tuple[type, ...]]:
    return {**dict.fromkeys(texts, (str,)), **others}


def _labels(row: Row) -> list[Any]:
    labels: list[Any] = row["choices"]["label"]
    return labels


_LETTERED = {"choices.text": (list,), "choices.label": (list,), "answerKey": (str,)}
_TYPE_NAMES = {str: "a text", int: "a whole number", list: "a list"}

SCHEMAS: dict[str, Schema] = {
    "piqa": Schema(
        "validation", _fields("goal", "sol1", "sol2", label=(int,)), "label", lambda _: [0, 1]
    ),
    "boolq": Schema(
        "validation", _fields("question", "passage", label=(int,)), "label", lambda _: [0, 1]
    ),
    "hellaswag": Schema(
        "validation",
        _fields("activity_label", "ctx_a", "ctx_b", endings=(list,), label=(str,)),
        "label",
        lambda row: [str(i) for i in range(len(row["endings"]))],
    ),
    "winogrande": Schema(
        "validation",
        _fields("sentence", "option1", "option2", "answer"),
        "answer",
        lambda _: ["1", "2"],
    ),
    "arc_easy": Schema("test", {"question": (str,), **_LETTERED}, "answerKey", _labels),
    "arc_challenge": Schema("test", {"question": (str,), **_LETTERED}, "answerKey", _labels),
    "openbookqa": Schema("test", {"question_stem": (str,), **_LETTERED}, "answerKey", _labels),
}
"""The seven tasks of the papers. Fields are named and ordered as in the hub's data sets."""


def local_rows(task: str, folder: Path, setting: str = "evaluation.data_dir") -> Iterator[str]:
    """The lines of `<folder>/tasks/<task>.jsonl`, each checked, each ending with a line feed.

    `setting` names the setting with the folder in messages. Raises UserError for a missing or empty
    file, and with file, line and field of an invalid row.
    """
    path = folder / "tasks" / f"{task}.jsonl"
    if not path.is_file():
        raise UserError(
            f"{setting}: no file {path} for the task '{task}'; expected {row_format(task)}"
        )
    is_empty = True
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                is_empty = False
                _check(line, SCHEMAS[task], f"{path}, line {number}")
                yield line.decode().rstrip("\r\n") + "\n"
    if is_empty:
        raise UserError(f"{path} has no rows; expected {row_format(task)}")


def row_format(task: str) -> str:
    """The fields of a task's rows, for a message."""
    return f"rows of {', '.join(SCHEMAS[task].fields)}"


def _check(line: bytes, schema: Schema, where: str) -> None:
    try:
        row = json.loads(line)
    except ValueError:
        raise UserError(f"{where}: not a JSON object on one line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object")
    for field, types in schema.fields.items():
        value = _value(row, field)
        if value is None:
            raise UserError(f"{where}: field '{field}' is missing")
        if not isinstance(value, types) or isinstance(value, bool):
            names = " or ".join(_TYPE_NAMES[kind] for kind in types)
            raise UserError(f"{where}: field '{field}' is {value!r:.80}; expected {names}")
    answer, answers = row[schema.answer], schema.answers(row)
    if answer not in answers:
        valid = ", ".join(map(repr, answers))
        raise UserError(f"{where}: field '{schema.answer}' is {answer!r}; expected one of {valid}")
    _check_choices(row, where)


def _check_choices(row: Row, where: str) -> None:
    choices = row.get("choices")
    if isinstance(choices, dict) and len(choices["text"]) != len(choices["label"]):
        raise UserError(
            f"{where}: field 'choices' has {len(choices['text'])} texts for "
            f"{len(choices['label'])} labels"
        )
    if "sentence" in row and "_" not in row["sentence"]:
        raise UserError(f"{where}: field 'sentence' has no '_' that marks the gap")


def _value(row: Any, field: str) -> Any:
    """The value of a dotted field name; None where it is missing."""
    for part in field.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row
