"""A database that is locked, damaged or mute is one line within seconds."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapruner import databases
from adapruner.errors import UserError
from adapruner.search.parallel.storage import open_storage


def database(folder: Path) -> Path:
    file = folder / "studies.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE things (name TEXT)")
    connection.close()
    return file


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def raised(call: Callable[[], object]) -> str:
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        call()
    assert time.monotonic() - started < 10, "the limit for a database without an answer"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_another_connection_locks_is_refused(tmp_path: Path) -> None:
    file = database(tmp_path)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    line = raised(lambda: open_storage(f"sqlite:///{file}"))
    assert line.startswith(f"search.storage: '{file}' is locked by another process")
    other.execute("ROLLBACK")
    other.close()
    open_storage(f"sqlite:///{file}")


@pytest.mark.parametrize(
    "content", [b"not SQLite at all" * 99, b"SQLite format 3\0" + b"\xff" * 999]
)
def test_a_file_that_is_damaged_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "studies.db"
    file.write_bytes(content)
    line = raised(lambda: open_storage(f"sqlite:///{file}"))
    assert line.startswith(f"search.storage: '{file}' is damaged")
    assert file.read_bytes() == content


def test_a_server_that_does_not_answer_is_refused_without_its_password(mute_port: int) -> None:
    url = f"postgresql+psycopg://me:s3cret@127.0.0.1:{mute_port}/studies"
    line = raised(lambda: open_storage(url))
    assert f"127.0.0.1:{mute_port} does not answer" in line and "s3cret" not in line


def test_an_absent_file_and_one_that_is_intact_pass(tmp_path: Path) -> None:
    databases.check_database(f"sqlite:///{tmp_path / 'absent.db'}", "x")
    databases.check_database("sqlite://", "x")
    databases.check_file(database(tmp_path), "x")
    assert not (tmp_path / "absent.db").exists()


def test_an_error_in_the_midst_of_the_work_is_explained(tmp_path: Path) -> None:
    file = database(tmp_path)
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 4096)
    connection = sqlite3.connect(file)
    with pytest.raises(sqlite3.DatabaseError) as error:
        connection.execute("SELECT * FROM things").fetchall()
    connection.close()
    assert "is damaged" in str(databases.explain_sqlite(error.value))
    assert databases.explain_sqlite(sqlite3.OperationalError("no such table: x")) is None
    assert databases.explain_sqlite(ValueError("locked")) is None
