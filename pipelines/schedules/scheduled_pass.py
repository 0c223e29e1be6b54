"""One schedule of passes on this machine, independent of the scheduler."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from adapruner.errors import UserError
from pipelines.schedules.timetable import Timetable

MARK = "Written by `adapruner schedule install`"

_ASSIGNMENT = re.compile(
    r"""[A-Za-z_][A-Za-z0-9_]*=([\w./:@%+,=-]*|'[^'\\]*'|"[^"'$`\\]*")""", re.ASCII
)
"""A line that /bin/sh and systemd read as the same assignment."""
"""What a file of a schedule says, so that no other file is overwritten or removed."""


@dataclass(frozen=True)
class ScheduledPass:
    """A command with its times: a list of arguments, run in the folder `folder`.

    `environment` is a file of lines NAME=value.
    """

    name: str
    when: Timetable
    folder: Path
    home: Path
    command: tuple[str, ...]
    environment: Path | None = None

    @property
    def unit(self) -> str:
        """The name of the schedule in the scheduler, where other programs have theirs."""
        return f"adapruner-{self.name}"


@dataclass(frozen=True)
class InstalledSchedule:
    """A schedule that a scheduler holds; times and command are in the scheduler's notation."""

    name: str
    scheduler: str
    when: str
    command: str


def schedule_name(file: Path, name: str | None) -> str:
    """`name`, or a name made from the name of the file. Raises UserError for an invalid name.

    It becomes a part of unit names, which allow few characters.
    """
    if name is None:
        name = file.stem.lower().replace("_", "-").replace(".", "-")
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", name, re.A):
        raise UserError(
            f"the schedule's name {name!r} is not at most 40 lower-case letters, digits and - "
            "(not at its ends); give another --name"
        )
    return name


def check_file(file: Path) -> None:
    """Raises UserError for a missing recompress file: a scheduler would not report it."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; give the YAML file of `adapruner recompress`")


def printable(value: str | Path) -> str:
    """A path or argument as text. Raises UserError for characters that don't fit on a line."""
    text = str(value)
    if not text.isprintable():
        raise UserError(f"{text!r} has characters that no scheduler accepts; rename it")
    return text


def check_environment(file: Path) -> Path:
    """The absolute path of an environment file.

    cron runs it by /bin/sh, systemd reads it by rules of its own. Raises UserError for a line that
    they read differently, and if other users may read the file.
    """
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise UserError(
            f"{file}: can't be read ({error.strerror}); give lines NAME=value"
        ) from None
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise UserError(f"{file} may hold passwords, and others can read it: chmod 600 '{file}'")
    for number, line in enumerate(
        file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
    ):
        if line and not line.startswith("#") and not _ASSIGNMENT.fullmatch(line):
            raise UserError(
                f"{file}, line {number}: schedulers read it differently; write NAME='value', "
                "without ' or a backslash in the value"
            )
    return file.absolute()
