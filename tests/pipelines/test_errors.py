from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from adapruner.errors import UserError
from pipelines.errors import explain, one_line_errors


def test_a_user_error_is_found_below_what_wraps_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors():
        try:
            raise UserError("no such text: 'a.txt'\n  give another")
        except UserError as error:
            raise RuntimeError("step failed") from error
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: no such text: 'a.txt' give another\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError) as caught, Path("/dev/full").open("w") as file:
        file.write("x" * 100_000)
    assert "the disk is full" in str(explain(caught.value))


def test_a_full_database_is_a_full_disk() -> None:
    assert "the disk is full" in str(explain(sqlite3.OperationalError("database or disk is full")))


def test_our_own_failures_keep_their_traceback() -> None:
    assert explain(ZeroDivisionError("division by zero")) is None
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError
