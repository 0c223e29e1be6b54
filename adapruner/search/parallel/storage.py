"""The database of studies, opened so that several processes can use it at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from filelock import FileLock
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url

from adapruner.databases import check_database, sqlite_file
from adapruner.errors import UserError, first_line
from adapruner.hashing import hash_json

WAIT_S = 60
"""How long a process waits for a lock of the database that another one holds."""

_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "PyMySQL",
}
"""Module of a driver -> the package that has it."""

_LOCKS = {
    "postgresql": (f"SET lock_timeout = '{WAIT_S}s'", "SELECT pg_advisory_lock(7261934)"),
    "mysql": (f"SELECT GET_LOCK('adapruner', {WAIT_S})",),
    "mariadb": (f"SELECT GET_LOCK('adapruner', {WAIT_S})",),
}
"""Database -> statements that lock something of ours until the connection is closed."""


def open_storage(url: str) -> RDBStorage:
    """The storage with its tables, which are created if absent.

    Raises UserError when the database or its driver can't be used. A message has no password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        parsed = make_url(url)
        check_database(url, "search.storage")
        # Optuna looks for the tables before it creates them: only one process may do that.
        with _schema_lock(parsed):
            storage = RDBStorage(url, engine_kwargs=_engine_options(parsed))
    except UserError:
        raise
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise UserError(
            f"search.storage {parsed.drivername}:// needs the Python package '{package}': run pip "
            f"install '{package}', or name another driver in the URL"
        ) from None
    except sa.exc.NoSuchModuleError as error:
        raise UserError(
            f"search.storage: {first_line(error)}; use a URL such as sqlite:///FILE, "
            "postgresql+psycopg://USER@HOST/NAME or mysql+pymysql://USER@HOST/NAME"
        ) from None
    except Exception as error:
        raise UserError(
            f"the study's storage can't be opened ({type(error).__name__}); see search.storage"
        ) from None
    if sqlite_file(url):
        _lock_at_begin(storage.engine)
    return storage


def is_in_memory(url: str) -> bool:
    """Whether the database belongs to this process alone."""
    return _is_sqlite(make_url(url)) and sqlite_file(url) is None


def lock_file(name: str, storage: str) -> Path:
    """The file that the owner of a study holds a lock on. It is empty and stays.

    It is beside an SQLite database, and in the folder for temporary files for other storages.
    """
    backend, _, location = storage.partition("://")
    database = location.partition("?")[0].partition("/")[2]
    if backend.startswith("sqlite") and Path(database).is_file():
        file = Path(database).resolve()
        return file.with_name(f"{file.name}.{name}.lock")
    # A database in memory belongs to its process. What precedes the @ may be a password.
    owner = os.getpid() if database in ("", ":memory:") else os.getuid()
    where = hash_json([backend, location.rpartition("@")[2], owner])[:16]
    return Path(tempfile.gettempdir()) / f"{name}.{where}.lock"


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine_options(url: URL) -> dict[str, Any]:
    if _is_sqlite(url):
        return {"connect_args": {"timeout": WAIT_S}}
    return {"pool_pre_ping": True}  # a trial may take longer than a server keeps a connection


def _lock_at_begin(engine: sa.Engine) -> None:
    """SQLite has no lock of rows, which Optuna uses to claim a trial: lock the file instead.

    By default a transaction only locks at its first write, so that two processes could read that a
    trial is free, and then both take it.
    """

    @sa.event.listens_for(engine, "connect")
    def without_own_begin(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # its connections are older than the listeners


@contextmanager
def _schema_lock(url: URL) -> Iterator[None]:
    if _is_sqlite(url):
        file = sqlite_file(str(url))
        # A lock would create a folder that is missing, which SQLite refuses.
        has_place = file is not None and file.parent.is_dir()
        lock = FileLock(f"{file}.lock", timeout=WAIT_S) if has_place else nullcontext()
        with lock:
            yield
        return
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in _LOCKS.get(url.get_backend_name(), ()):
            connection.execute(sa.text(statement))
        yield
