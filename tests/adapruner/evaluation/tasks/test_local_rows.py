"""Local rows are read as they are, and invalid ones are refused with file, line and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapruner.errors import UserError
from adapruner.evaluation.tasks.local_rows import SCHEMAS, local_rows
from tests.adapruner.evaluation.tasks.task_rows import ROWS, write_rows

Change = Callable[[dict[str, Any]], str]


def without(field: str) -> Change:
    return lambda row: json.dumps({k: v for k, v in row.items() if k != field})


def having(field: str, value: Any) -> Change:
    return lambda row: json.dumps({**row, field: value})


@pytest.mark.parametrize("task", SCHEMAS)
def test_valid_rows_are_read_unchanged(task: str, tmp_path: Path) -> None:
    data = write_rows(tmp_path)
    assert [json.loads(line) for line in local_rows(task, data)] == ROWS[task]


def test_blank_lines_and_carriage_returns_are_dropped(tmp_path: Path) -> None:
    data = write_rows(tmp_path)
    first, second = (json.dumps(row) for row in ROWS["piqa"])
    (data / "tasks" / "piqa.jsonl").write_bytes(f"{first}\r\n\n  \n{second}".encode())
    assert list(local_rows("piqa", data)) == [f"{first}\n", f"{second}\n"]


@pytest.mark.parametrize(
    ("task", "change", "parts"),
    [
        ("piqa", without("sol2"), ("'sol2'", "missing")),
        ("boolq", without("passage"), ("'passage'", "missing")),
        ("hellaswag", having("endings", "a"), ("'endings'", "'a'", "a list")),
        ("hellaswag", having("label", "4"), ("'label'", "'4'", "'0', '1'")),
        ("winogrande", having("answer", 1), ("'answer'", "1", "a text")),
        ("winogrande", having("sentence", "No."), ("'sentence'", "'_'")),
        ("arc_easy", having("choices", {"text": ["a"]}), ("'choices.label'", "missing")),
        ("arc_challenge", having("answerKey", "E"), ("'answerKey'", "'E'", "'A', 'B'")),
        ("openbookqa", having("choices", {"text": ["a"], "label": ["A", "B"]}), ("'choices'",)),
        ("piqa", having("label", True), ("'label'", "True", "a whole number")),
        ("piqa", having("label", -1), ("'label'", "-1", "0, 1")),
        ("piqa", lambda _: "[1]", ("JSON object",)),
        ("piqa", lambda _: "{", ("JSON object",)),
    ],
)
def test_an_invalid_row_is_refused_with_file_line_field_and_value(
    task: str, change: Change, parts: tuple[str, ...], tmp_path: Path
) -> None:
    data = write_rows(tmp_path)
    first, second, *_ = ROWS[task]
    path = data / "tasks" / f"{task}.jsonl"
    path.write_text(json.dumps(first) + "\n" + change(second) + "\n")
    with pytest.raises(UserError) as refused:
        list(local_rows(task, data))
    message = str(refused.value)
    assert "\n" not in message
    for part in (f"{task}.jsonl, line 2", *parts):
        assert part in message


def test_a_missing_file_is_named_with_the_fields_that_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        list(local_rows("boolq", tmp_path))
    message = str(refused.value)
    for part in ("'boolq'", str(tmp_path / "tasks" / "boolq.jsonl"), "evaluation.data_dir"):
        assert part in message
    assert all(field in message for field in SCHEMAS["boolq"].fields)
