"""A timer of the user's systemd. Its times are UTC, and a missed start is caught up.

systemd does not start a service that is still running, so two passes never overlap.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from adapruner.errors import UserError
from adapruner.files import replace_text
from pipelines.schedules.scheduled_pass import MARK, InstalledSchedule, ScheduledPass, printable

HEADER = f"# {MARK}; `adapruner schedule remove` removes it."


def available() -> bool:
    """Whether the user's systemd runs and answers."""
    try:
        return _systemctl("show-environment").returncode == 0
    except FileNotFoundError:
        return False


def preview(schedule: ScheduledPass) -> str:
    """The paths of the unit files and their contents. Raises UserError."""
    return "\n".join(f"{unit}:\n{text}" for unit, text in unit_files(schedule).items())


def install(schedule: ScheduledPass) -> str:
    """Writes the units and starts the timer; returns what the user does next. Raises UserError."""
    for path, text in unit_files(schedule).items():
        _refuse_foreign(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    timer = f"{schedule.unit}.timer"
    if not available():
        return (
            "systemd of this user does not run here, so nothing was started. In a session of the "
            f"user: systemctl --user daemon-reload && systemctl --user enable --now {timer}"
        )
    for arguments in (("daemon-reload",), ("enable", timer), ("restart", timer)):
        result = _systemctl(*arguments)
        if result.returncode:
            raise UserError(f"systemctl --user {' '.join(arguments)}: {result.stderr.strip()}")
    return "Started. To run it also while the user is logged out: loginctl enable-linger"


def remove(name: str) -> bool:
    """Stops and deletes the timer `name`; returns whether there was one. A running pass goes on."""
    paths = [unit_folder() / f"adapruner-{name}.{kind}" for kind in ("timer", "service")]
    present = [path for path in paths if path.exists()]
    for path in present:
        _refuse_foreign(path)
    is_running = bool(present) and available()
    if is_running:
        _systemctl("disable", "--now", paths[0].name)
    for path in present:
        path.unlink()
    if is_running:
        _systemctl("daemon-reload")
    return bool(present)


def installed() -> list[InstalledSchedule]:
    """The timers that `install` wrote."""
    schedules = []
    for path in sorted(unit_folder().glob("adapruner-*.timer")):
        text = path.read_text(encoding="utf-8")
        service = path.with_suffix(".service")
        if MARK in text and service.exists():
            when = re.findall(r"^OnCalendar=(.*)$", text, re.M)
            command = re.findall(r"^ExecStart=(.*)$", service.read_text(encoding="utf-8"), re.M)
            name = path.stem.removeprefix("adapruner-")
            schedules.append(InstalledSchedule(name, "systemd", ", ".join(when), " ".join(command)))
    return schedules


def unit_folder() -> Path:
    """The folder of the user's units."""
    config = os.environ.get("XDG_CONFIG_HOME")
    base = Path(config) if config and Path(config).is_absolute() else Path.home() / ".config"
    return base / "systemd" / "user"


def unit_files(schedule: ScheduledPass) -> dict[Path, str]:
    """Path -> content of the unit files. Raises UserError."""
    folder = unit_folder()
    return {
        folder / f"{schedule.unit}.service": _service(schedule),
        folder / f"{schedule.unit}.timer": _timer(schedule),
    }


def quoted(arguments: Sequence[str]) -> str:
    """Arguments for ExecStart=, where quotes, backslashes, $ and % have a meaning."""
    escapes = {"\\": "\\\\", '"': '\\"', "$": "$$", "%": "%%"}
    words = ("".join(escapes.get(c, c) for c in printable(word)) for word in arguments)
    return " ".join(f'"{word}"' for word in words)


def _path_value(path: Path) -> str:
    """A path for a setting that uses the whole line; only % has a meaning there."""
    text = printable(path)
    if text != text.strip() or text.endswith("\\"):
        raise UserError(f"{text!r} ends in a character that systemd would change; rename it")
    return text.replace("%", "%%")


def _service(schedule: ScheduledPass) -> str:
    if "$" in schedule.command[0]:
        raise UserError(f"{schedule.command[0]!r} has a $, which systemd would change; move it")
    lines = [
        HEADER,
        "[Unit]",
        f"Description=AdaPruner: compress new model versions ({schedule.name})",
        "",
        "[Service]",
        "Type=oneshot",
        f"WorkingDirectory={_path_value(schedule.folder)}",
        f"ExecStart={quoted(schedule.command)}",
        "Nice=10",
    ]
    if schedule.environment is not None:
        lines.append(f"EnvironmentFile={_path_value(schedule.environment)}")
    return "\n".join(lines) + "\n"


def _timer(schedule: ScheduledPass) -> str:
    return (
        f"{HEADER}\n"
        "[Unit]\n"
        f"Description=AdaPruner: times of the compression of new model versions ({schedule.name})\n"
        "\n"
        "[Timer]\n"
        f"OnCalendar={schedule.when.calendar}\n"
        "Persistent=true\n"
        "\n"
        "[Install]\n"
        "WantedBy=timers.target\n"
    )


def _refuse_foreign(path: Path) -> None:
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{path} was not written by adapruner; give another --name")


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", "--user", "--no-ask-password", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
