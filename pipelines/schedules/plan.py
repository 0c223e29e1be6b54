"""One schedule of passes on this machine: what each scheduler is told."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import mistake
from pipelines.schedules.timetable import Timetable

MARK = "Written by `adapruner schedule install`; `adapruner schedule remove` takes it away."


@dataclass(frozen=True)
class Plan:
    """What starts when; `command` is a list of arguments, run in the folder `folder`."""

    name: str
    when: Timetable
    folder: Path
    home: Path
    command: tuple[str, ...]
    environment: Path | None = None

    @property
    def unit(self) -> str:
        """The schedule's name where other programs have theirs."""
        return f"adapruner-{self.name}"


@dataclass(frozen=True)
class Installed:
    """A schedule that was found."""

    name: str
    where: str
    when: str
    what: str


def name_of(file: Path, given: str | None) -> str:
    """The name of a schedule: the given one, else from the file's name. Raises UserError.

    It becomes a part of unit names, so its characters are few.
    """
    name = file.stem.lower().replace("_", "-").replace(".", "-") if given is None else given
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", name, re.A):
        raise mistake(
            f"the schedule's name {name!r} is not at most 40 lower-case letters, digits and - "
            "(not at its ends); give another --name"
        )
    return name


def check_file(file: Path) -> None:
    """Raises UserError for a file of passes that is not there: a scheduler would tell nobody."""
    if not file.is_file():
        raise mistake(f"{file}: no such file; give the YAML file of the passes")


def check_text(value: str | Path) -> str:
    """A path or argument as text that can stand in a line. Raises UserError."""
    text = str(value)
    if not text.isprintable():
        raise mistake(f"{text!r} has characters that no scheduler takes; rename it")
    return text


def check_environment(file: Path) -> Path:
    """The environment file, made absolute. Raises UserError for one that others may read."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise mistake(f"{file}: can't be read ({error.strerror}); give lines NAME=value") from None
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise mistake(f"{file} may hold passwords, and others can read it: chmod 600 '{file}'")
    return file.absolute()
