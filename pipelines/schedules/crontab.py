"""Lines of the user's crontab: a comment that marks them, and the command.

Debian's cron reads times in the time zone of the machine, whatever CRON_TZ says; cronie (Fedora
and others) obeys CRON_TZ. `flock` starts no pass while one is running.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from adapruner.errors import UserError
from pipelines.schedules.scheduled_pass import InstalledSchedule, ScheduledPass, printable

BEGIN = "# adapruner schedule {} (in UTC; `adapruner schedule remove` removes it)"
END = "# adapruner schedule end"
BLOCK = (
    r"^# adapruner schedule (?P<name>{}) \(.*\)\n"
    rf"(?:CRON_TZ=UTC\n)?(?P<when>(?:\S+ ){{{{5}}}})(?P<command>.+)\n{END}\n"
)
"""A block of the schedule {}. A block of any other form was edited and is left alone."""
LONGEST_COMMAND = 998
"""Debian's cron truncates a longer command."""


def available() -> bool:
    """Whether there is a crontab to write to."""
    return shutil.which("crontab") is not None


def preview(schedule: ScheduledPass) -> str:
    """The lines of the crontab. Raises UserError."""
    return f"lines of the crontab:\n{block(schedule)}"


def install(schedule: ScheduledPass) -> str:
    """Writes the schedule into the crontab; returns where its output goes. Raises UserError."""
    lines = block(schedule)
    others = _without(_read(), schedule.name)
    if others and not others.endswith("\n"):
        others += "\n"
    _write(others + lines)
    return f"Its output is in the system's log: journalctl -t {schedule.unit}"


def remove(name: str) -> bool:
    """Removes the schedule `name` from the crontab; returns whether it was there."""
    if not available():
        return False
    before = _read()
    after = _without(before, name)
    if after != before:
        _write(after)
    return after != before


def installed() -> list[InstalledSchedule]:
    """The schedules in the crontab."""
    blocks = re.finditer(BLOCK.format("[a-z0-9-]+"), _read() if available() else "", re.M)
    return [
        InstalledSchedule(
            match["name"], "crontab", f"{match['when'].strip()} UTC", match["command"]
        )
        for match in blocks
    ]


def block(schedule: ScheduledPass) -> str:
    """The lines of a schedule. Raises UserError if cron can't hold its times or its command."""
    zone = ["CRON_TZ=UTC"] if _obeys_zone() else []
    if not zone:
        _check_zone(schedule)
    line = f"{schedule.when.cron} {_command(schedule)}"
    return "\n".join([BEGIN.format(schedule.name), *zone, line, END]) + "\n"


def _command(schedule: ScheduledPass) -> str:
    """One line for /bin/sh, in which cron turns a bare % into a line break."""
    parts = [f"cd {_word(schedule.folder)}"]
    if schedule.environment is not None:
        parts.append(f"set -a && . {_word(schedule.environment)} && set +a")
    command = " ".join(map(_word, schedule.command))
    lock = _word(schedule.home / f"{schedule.unit}.lock")
    parts.append(f"flock -n -E 0 {lock} {command}")
    line = f"{{ {' && '.join(parts)}; }} 2>&1 | logger -t {schedule.unit}".replace("%", "\\%")
    if len(line) > LONGEST_COMMAND:
        raise UserError(
            f"the crontab's command would have {len(line)} characters, of {LONGEST_COMMAND} at "
            "most; use shorter paths, or --with systemd"
        )
    return line


def _word(value: str | Path) -> str:
    """One word of /bin/sh. Raises UserError for a backslash, which crons read differently."""
    text = printable(value)
    if "\\" in text:
        raise UserError(f"{text!r} has a backslash, which cron would change; rename it")
    return shlex.quote(text)


def _check_zone(schedule: ScheduledPass) -> None:
    year = datetime.now(UTC).year
    days = [datetime(year, month, 1, tzinfo=UTC).astimezone() for month in range(1, 13)]
    offsets = {day.utcoffset() for day in days}
    if not all(offset is None or schedule.when.is_same_at(offset) for offset in offsets):
        raise UserError(
            f"cron reads '{schedule.when.cron}' in this machine's time zone, not in UTC; use "
            "--with systemd, set the machine to UTC, or repeat within the hour (--every 15m)"
        )


def _obeys_zone() -> bool:
    """Whether this crontab is cronie's."""
    result = subprocess.run(["crontab", "-V"], capture_output=True, text=True, check=False)
    return "cronie" in result.stdout + result.stderr


def _read() -> str:
    result = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    if result.returncode and "no crontab" not in result.stderr:
        raise UserError(f"crontab -l: {result.stderr.strip()}; the crontab was not changed")
    return "" if result.returncode else result.stdout


def _write(text: str) -> None:
    result = subprocess.run(
        ["crontab", "-"], input=text, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise UserError(f"crontab: {result.stderr.strip()}; the crontab was not changed")


def _without(text: str, name: str) -> str:
    """The crontab without the block of the schedule `name`."""
    return re.sub(BLOCK.format(re.escape(name)), "", text, flags=re.M)
