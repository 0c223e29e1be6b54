"""Which processes use a home folder, and which one sets it up or cleans it.

ZenML, MLflow and Optuna lock their SQLite files for each change, so that runs side by side share a
home. Only creating and migrating the stores, and removing what no run needs, are for one process
at a time. It holds the lock `locks/setup`; each process that uses the home holds a lock of its own
beside it.
"""

from __future__ import annotations

import atexit
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

import click

from adapruner.errors import UserError
from adapruner.locks import Holder, Lock, acquire, acquire_existing, holder_of

FOLDER, SETUP = "locks", "setup"
PATIENCE = 600.0
"""Seconds to wait for another process that sets up or cleans the home."""


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """The body runs in one process at a time; who has to wait says for whom, in one line.

    Raises UserError after `PATIENCE`, and where the file system of the home has no locks.
    """
    lock = _wait_for(home, _folder(home) / SETUP)
    try:
        yield
    finally:
        lock.release()


@cache
def enter(home: Path) -> None:
    """Shows other processes that this one uses the home until it ends. Call it in `exclusive`."""
    file = _folder(home) / f"{socket.gethostname()}~{uuid4().hex}"
    _acquire(home, file)  # open until the process ends
    atexit.register(file.unlink, missing_ok=True)


def other_users(home: Path) -> list[Holder]:
    """The other processes that use the home; forgets those that have ended.

    Call it in `exclusive`, and not after `enter`.
    """
    users = []
    for file in sorted(_folder(home).glob("*~*")):
        lock = acquire_existing(file)
        holder = holder_of(file)
        if lock is not None:
            file.unlink()
            lock.release()
        elif holder is not None:
            users.append(holder)
    return users


def _folder(home: Path) -> Path:
    folder = home.absolute() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wait_for(home: Path, file: Path) -> Lock:
    until, shown = time.monotonic() + PATIENCE, False
    while (lock := _acquire(home, file)) is None:
        occupied = f"{home} is being set up or cleaned by {holder_of(file) or 'another process'}"
        if time.monotonic() > until:
            raise UserError(f"{occupied}; wait until it ends, or set another --home")
        if not shown:
            click.echo(f"Waiting: {occupied}.", err=True)
            shown = True
        time.sleep(0.1)
    return lock


def _acquire(home: Path, file: Path) -> Lock | None:
    try:
        return acquire(file)
    except OSError as error:
        raise UserError(
            f"{home} can't be locked ({error.strerror}): set --home to a folder that this user can "
            "write to, on a file system with locks"
        ) from None
