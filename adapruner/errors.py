"""The exceptions that are shown to a user as one line."""


class UserError(Exception):
    """Invalid input.

    The message is one line: the value, what was expected, what to do. The command line prints
    it without a traceback and exits with 2.
    """


class UnreachableError(UserError):
    """The requested ratio or method can't be applied to this model, in this layout."""


def first_line(error: BaseException, length: int = 200) -> str:
    """The first line of an exception's message, at most `length` characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:length]
