"""A timer of the user's own systemd. Its times are UTC, and a start missed is made good.

systemd starts no service that is still running, so two passes never overlap.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import mistake
from pipelines.schedules.plan import MARK, Installed, Plan, check_text


def folder() -> Path:
    """Where the user's units are."""
    config = os.environ.get("XDG_CONFIG_HOME")
    base = Path(config) if config and Path(config).is_absolute() else Path.home() / ".config"
    return base / "systemd" / "user"


def available() -> bool:
    """Whether the user's systemd runs and can be spoken to."""
    try:
        return _systemctl("show-environment").returncode == 0
    except FileNotFoundError:
        return False


def files(plan: Plan) -> dict[Path, str]:
    """The unit files by path."""
    base = folder()
    return {
        base / f"{plan.unit}.service": _service(plan),
        base / f"{plan.unit}.timer": _timer(plan),
    }


def install(plan: Plan) -> str:
    """Write the units and start the timer; what is left to do. Raises UserError."""
    for path, text in files(plan).items():
        _refuse_foreign(path)
        _write(path, text)
    timer = f"{plan.unit}.timer"
    if not available():
        return (
            "systemd of this user does not run here, so nothing was started. In a session of the "
            f"user: systemctl --user daemon-reload && systemctl --user enable --now {timer}"
        )
    for words in (("daemon-reload",), ("enable", timer), ("restart", timer)):
        ended = _systemctl(*words)
        if ended.returncode:
            raise mistake(f"systemctl --user {' '.join(words)}: {ended.stderr.strip()}")
    return "Started. So that it also runs while nobody is logged in: loginctl enable-linger"


def remove(name: str) -> bool:
    """Stop and delete the timer `name`; whether there was one. A running pass goes on."""
    paths = [folder() / f"adapruner-{name}.{kind}" for kind in ("timer", "service")]
    present = [path for path in paths if path.exists()]
    for path in present:
        _refuse_foreign(path)
    running = bool(present) and available()
    if running:
        _systemctl("disable", "--now", paths[0].name)
    for path in present:
        path.unlink()
    if running:
        _systemctl("daemon-reload")
    return bool(present)


def installed() -> list[Installed]:
    """The timers that `install` wrote."""
    found = []
    for path in sorted(folder().glob("adapruner-*.timer")):
        text = path.read_text(encoding="utf-8")
        service = path.with_suffix(".service")
        if MARK in text and service.exists():
            when = re.findall(r"^OnCalendar=(.*)$", text, re.M)
            what = re.findall(r"^ExecStart=(.*)$", service.read_text(encoding="utf-8"), re.M)
            name = path.stem.removeprefix("adapruner-")
            found.append(Installed(name, "systemd", ", ".join(when), " ".join(what)))
    return found


def quoted(arguments: Sequence[str]) -> str:
    """Arguments for ExecStart=, where quotes, backslashes, $ and % mean something."""
    marks = {"\\": "\\\\", '"': '\\"', "$": "$$", "%": "%%"}
    words = ("".join(marks.get(c, c) for c in check_text(word)) for word in arguments)
    return " ".join(f'"{word}"' for word in words)


def _path(path: Path) -> str:
    """A path for a setting that takes the whole line; only % means something there."""
    text = check_text(path)
    if text != text.strip() or text.endswith("\\"):
        raise mistake(f"{text!r} ends in a character that systemd would change; rename it")
    return text.replace("%", "%%")


def _service(plan: Plan) -> str:
    if "$" in plan.command[0]:
        raise mistake(f"{plan.command[0]!r} has a $, which systemd does not keep; move it")
    lines = [
        f"# {MARK}",
        "[Unit]",
        f"Description=AdaPruner: compress what is new ({plan.name})",
        "",
        "[Service]",
        "Type=oneshot",
        f"WorkingDirectory={_path(plan.folder)}",
        f"ExecStart={quoted(plan.command)}",
        "Nice=10",
    ]
    if plan.environment is not None:
        lines.append(f"EnvironmentFile={_path(plan.environment)}")
    return "\n".join(lines) + "\n"


def _timer(plan: Plan) -> str:
    return (
        f"# {MARK}\n"
        "[Unit]\n"
        f"Description=AdaPruner: when to compress what is new ({plan.name})\n"
        "\n"
        "[Timer]\n"
        f"OnCalendar={plan.when.calendar}\n"
        "Persistent=true\n"
        "\n"
        "[Install]\n"
        "WantedBy=timers.target\n"
    )


def _refuse_foreign(path: Path) -> None:
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise mistake(f"{path} was not written by adapruner; give another --name")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _systemctl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", "--user", "--no-ask-password", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
