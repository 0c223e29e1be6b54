"""The one exception a user is meant to see."""


class UserError(Exception):
    """Something the user gave can't be used.

    The message is one line: what was given, what was wanted, what to do. The command line prints
    it without a traceback and exits with 2.
    """


class UnreachableError(UserError):
    """What was asked for can't be had of this model; of another, or in another way, it can."""
