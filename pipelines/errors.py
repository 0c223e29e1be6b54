"""How a failed command ends: one line for a mistake of the user, a traceback for anything else."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from adapruner.databases import explain_sqlite
from adapruner.errors import UserError

FULL_DISK_MESSAGES = ("No space left on device", "database or disk is full")


class FailedRunError(Exception):
    """A run elsewhere failed. The message is one line; its traceback is in the run's log."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns a UserError or a full disk, wherever it was raised, into one line and exit code 2.

    A FailedRunError is one line and exit code 1.
    """
    try:
        yield
    except FailedRunError as error:
        click.echo(f"error: {_one_line(str(error))}", err=True)
        sys.exit(1)
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        click.echo(f"error: {line}", err=True)
        sys.exit(2)


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can correct; None for any other error."""
    for cause in _causes(error):
        if _reports_full_disk(cause):
            return f"the disk is full{_file_of(cause)}; free space and run the same command again"
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return _one_line(str(cause))
    return next(filter(None, map(explain_sqlite, _causes(error))), None)


def _one_line(text: str) -> str:
    """The text with single spaces, printable."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """The text with what a terminal might obey, or can't show, written out: ESC as \\x1b."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def is_full_disk(error: BaseException) -> bool:
    """Whether the error, or one of its causes, is a full disk."""
    return any(_reports_full_disk(cause) for cause in _causes(error))


def _reports_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(message in str(error) for message in FULL_DISK_MESSAGES)


def _file_of(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f" (writing {name})" if name else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and the errors that it was raised from, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
