"""Two lines of the user's crontab: a mark that tells whose they are, and the command.

Debian's cron reads times in the machine's own time zone, whatever CRON_TZ says; cronie (Fedora
and others) obeys CRON_TZ. `flock` starts no pass while one runs.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from pipelines.errors import mistake
from pipelines.schedules.plan import Installed, Plan, check_text

BEGIN = "# adapruner schedule {} (in UTC; `adapruner schedule remove` takes it away)"
END = "# adapruner schedule end"
# A block has this form to the letter, or is left alone: somebody has edited it.
BLOCK = (
    rf"^{re.escape(BEGIN).replace(re.escape('{}'), '(?P<name>{})')}\n"
    rf"(?:CRON_TZ=UTC\n)?(?P<when>(?:\S+ ){{{{5}}}})(?P<what>.+)\n{END}\n"
)
# Debian's cron cuts off a longer command.
LONGEST_COMMAND = 998


def available() -> bool:
    """Whether there is a crontab to write to."""
    return shutil.which("crontab") is not None


def block(plan: Plan) -> str:
    """The lines of a schedule. Raises UserError where times or the command can't be kept."""
    zone = ["CRON_TZ=UTC"] if _obeys_zone() else []
    if not zone:
        _check_zone(plan)
    line = f"{plan.when.cron} {_command(plan)}"
    return "\n".join([BEGIN.format(plan.name), *zone, line, END]) + "\n"


def install(plan: Plan) -> str:
    """Put the schedule into the crontab, replacing one of its name; what is left to do."""
    lines = block(plan)
    others = _without(_read(), plan.name)
    if others and not others.endswith("\n"):
        others += "\n"
    _write(others + lines)
    return f"Its output is in the system's log: journalctl -t {plan.unit}"


def remove(name: str) -> bool:
    """Take the schedule `name` out of the crontab; whether it was there."""
    if not available():
        return False
    before = _read()
    after = _without(before, name)
    if after != before:
        _write(after)
    return after != before


def installed() -> list[Installed]:
    """The schedules in the crontab."""
    blocks = re.finditer(BLOCK.format("[a-z0-9-]+"), _read() if available() else "", re.M)
    return [
        Installed(found["name"], "crontab", f"{found['when'].strip()} UTC", found["what"])
        for found in blocks
    ]


def _command(plan: Plan) -> str:
    """One line for /bin/sh, in which cron turns a bare % into a line's end."""
    parts = [f"cd {_word(plan.folder)}"]
    if plan.environment is not None:
        parts.append(f"set -a && . {_word(plan.environment)} && set +a")
    command = " ".join(map(_word, plan.command))
    parts.append(f"flock -n -E 0 {_word(plan.home / f'{plan.unit}.lock')} {command}")
    line = f"{{ {' && '.join(parts)}; }} 2>&1 | logger -t {plan.unit}".replace("%", "\\%")
    if len(line) > LONGEST_COMMAND:
        raise mistake(
            f"the crontab's command would have {len(line)} characters, of {LONGEST_COMMAND} at "
            "most; use shorter paths, or --with systemd"
        )
    return line


def _word(value: str | Path) -> str:
    """One word of /bin/sh. Raises UserError for a backslash: crons differ in what it means."""
    text = check_text(value)
    if "\\" in text:
        raise mistake(f"{text!r} has a backslash, which cron does not keep; rename it")
    return shlex.quote(text)


def _check_zone(plan: Plan) -> None:
    year = datetime.now(UTC).year
    days = [datetime(year, month, 1, tzinfo=UTC).astimezone() for month in range(1, 13)]
    offsets = {day.utcoffset() for day in days}
    if not all(offset is None or plan.when.is_the_same_at(offset) for offset in offsets):
        raise mistake(
            f"cron reads '{plan.when.cron}' in this machine's time zone, not in UTC; use "
            "--with systemd, set the machine to UTC, or repeat within the hour (--every 15m)"
        )


def _obeys_zone() -> bool:
    """Whether this crontab is cronie's."""
    ended = subprocess.run(["crontab", "-V"], capture_output=True, text=True, check=False)
    return "cronie" in ended.stdout + ended.stderr


def _read() -> str:
    ended = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    if ended.returncode and "no crontab" not in ended.stderr:
        raise mistake(f"crontab -l: {ended.stderr.strip()}; the crontab was left as it is")
    return "" if ended.returncode else ended.stdout


def _write(text: str) -> None:
    ended = subprocess.run(
        ["crontab", "-"], input=text, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise mistake(f"crontab: {ended.stderr.strip()}; the crontab was left as it is")


def _without(text: str, name: str) -> str:
    """The crontab without the block of a name; all other lines as they were."""
    return re.sub(BLOCK.format(re.escape(name)), "", text, flags=re.M)
