"""Row results are read as they were written."""

from __future__ import annotations

from pathlib import Path

from adapruner.evaluation.results import RowResult, read_rows, write_rows


def test_rows_of_every_task_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == {}
    rows = [RowResult(id=i, right=bool(i), choice=i, answer=1, margin=0.5 * i) for i in range(2)]
    write_rows(tmp_path, "piqa", rows)
    write_rows(tmp_path, "boolq", rows[:1])
    assert read_rows(tmp_path) == {"boolq": rows[:1], "piqa": rows}
