"""How a run that can't go on ends: one line for the user's part, a traceback for ours."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from adapruner.errors import UserError

FULL = ("No space left on device", "database or disk is full")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a UserError or a full disk, wherever it was raised, into one line and exit code 2."""
    try:
        yield
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        click.echo(f"error: {line}", err=True)
        sys.exit(2)


def mistake(message: str) -> UserError:
    """A UserError, for modules of services: importing the library's takes seconds and memory."""
    from adapruner.errors import UserError

    return UserError(message)


def explain(error: BaseException) -> str | None:
    """The one line for an error that a user can do something about; None for any other."""
    from adapruner.errors import UserError

    for cause in _chain(error):
        if _says_full(cause):
            return f"the disk is full{_of(cause)}; make room and run the same command again"
    for cause in _chain(error):
        if isinstance(cause, UserError):
            return " ".join(str(cause).split())
    return None


def is_full(error: BaseException) -> bool:
    """Whether the error, or what it was raised from, is a full disk."""
    return any(_says_full(cause) for cause in _chain(error))


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(sign in str(error) for sign in FULL)


def _of(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f" (writing {name})" if name else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from, once each."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
