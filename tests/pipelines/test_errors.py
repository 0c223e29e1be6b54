from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from adapruner.errors import UserError
from pipelines.errors import explain, is_full_disk, one_line_errors


def test_a_user_error_below_other_errors_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        try:
            raise UserError("no such text: 'a.txt'\n  give another")
        except UserError as error:
            raise RuntimeError("step failed") from error
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: no such text: 'a.txt' give another\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_explained() -> None:
    with pytest.raises(OSError) as caught, Path("/dev/full").open("w") as file:
        file.write("x" * 100_000)
    assert is_full_disk(caught.value)
    assert "the disk is full" in str(explain(caught.value))


def test_a_full_database_is_a_full_disk() -> None:
    error = sqlite3.OperationalError("database or disk is full")
    assert is_full_disk(error)
    assert "the disk is full" in str(explain(error))


def test_a_failure_of_the_program_keeps_its_traceback() -> None:
    assert explain(ZeroDivisionError("division by zero")) is None
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError
