"""The exceptions that are shown to a user as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Invalid input.

    The message is one line: the value, what was expected, what to do. The command line prints
    it without a traceback and exits with 2.
    """


class UnreachableError(UserError):
    """The requested ratio or method can't be applied to this model, in this layout."""


@contextmanager
def refused_as(problem: str) -> Iterator[None]:
    """Turns what the body raises into a UserError: `problem`, then the first line of the exception.

    For libraries that report invalid input by any type of exception, a panic of Rust included. An
    interrupt stays one, also where a library has caught it and raised another exception.
    """
    try:
        yield
    except BaseException as error:
        if (interrupt := _interrupt_in(error)) is not None:
            raise interrupt from None
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise UserError(f"{problem}: {first_line(error)}") from None
        raise


def _interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that an exception was raised from, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def first_line(error: BaseException, length: int = 200) -> str:
    """The first line of an exception's message, at most `length` characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:length]
