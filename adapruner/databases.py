"""Whether a database answers: a check before the work that would wait for it.

Errors are explained here for every command, so SQLAlchemy is imported where a URL is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from adapruner.errors import UserError, first_line

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

LIMIT_S = 6.0
"""Seconds that a database has for its answer."""

_IN_MEMORY = (None, "", ":memory:")

_DAMAGED = "is damaged; restore it from a backup, or move it away to begin with an empty one"
_MEANINGS = {
    "locked": "is locked by another process; end that process, or run again when it is done",
    "readonly": "can't be written to; make it writable or use another one",
    "unable to open": "can't be opened; make it readable and its folder writable",
    "not a database": _DAMAGED,
    "malformed": _DAMAGED,
}
"""Part of a message of SQLite -> what it means and what to do."""


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite database; None for a server, and for a database in memory."""
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in _IN_MEMORY:
        return None
    return Path(str(parsed.database))


def check_database(url: str, setting: str) -> None:
    """Raises UserError where the database at `url`, the value of `setting`, can't be used.

    That is an SQLite file that is damaged, or that another process locks for longer than `LIMIT_S`,
    and a server that does not answer within `LIMIT_S`. A file may be absent. An error of the driver
    is raised as it is.
    """
    from sqlalchemy.engine import make_url

    file = sqlite_file(url)
    if file is not None:
        check_file(file, setting)
    elif make_url(url).get_backend_name() != "sqlite":
        _check_server(make_url(url), setting)


def check_file(file: Path, setting: str) -> None:
    """`check_database` for an SQLite file."""
    if not file.is_file():
        return
    try:
        connection = sqlite3.connect(file, timeout=LIMIT_S, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{setting}: '{file}' {_explained(error)}") from None


def explain_sqlite(error: BaseException) -> str | None:
    """One line on an error of SQLite that is not the caller's; None for any other error."""
    cause = getattr(error, "orig", error)
    if not isinstance(cause, sqlite3.DatabaseError) or not any(m in str(cause) for m in _MEANINGS):
        return None
    return f"a database {_explained(cause)}"


def _explained(error: BaseException) -> str:
    for message, meaning in _MEANINGS.items():
        if message in str(error):
            return meaning
    return f"can't be used ({first_line(error)})"


def _check_server(url: URL, setting: str) -> None:
    import sqlalchemy as sa

    def answer() -> None:
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            connection.execute(sa.text("SELECT 1"))

    if not _ends(answer):
        address = f"{url.host}:{url.port}" if url.port else url.host
        raise UserError(
            f"{setting}: the {url.get_backend_name()} server at {address} does not answer within "
            f"{LIMIT_S:.0f} s; start it, or name another one"
        )


def _ends(call: Callable[[], None]) -> bool:
    """Whether the call ends in time; its error is raised. Drivers differ in their own timeouts."""
    errors = list[Exception]()

    def run() -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    thread = Thread(target=run, daemon=True)  # a call without an end does not keep the process
    thread.start()
    thread.join(LIMIT_S)
    if errors:
        raise errors[0]
    return not thread.is_alive()
