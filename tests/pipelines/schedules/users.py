"""The home folder of a user, with a crontab that is a file and without a running systemd."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.schedules.scheduled_pass import ScheduledPass
from pipelines.schedules.timetable import Timetable

EVERY_QUARTER = Timetable("*/15 * * * *")
AWKWARD = "a b'c\"d$HOME`e`%h;f&|*é"
"""A name with characters that have a meaning in shells, cron or systemd."""
CRONTAB = """#!/bin/sh
case "$1" in
-l) cat "$HOME/crontab" 2>/dev/null || { echo "no crontab for you" >&2; exit 1; } ;;
-) cat > "$HOME/crontab" ;;
*) echo "usage error" >&2; exit 1 ;;
esac
"""
"""The program `crontab` with -l, - and -V, for a crontab in a file."""


def make_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `folder` the home of the user of this process."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "crontab"
    program.write_text(CRONTAB)
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "UTC")
    return folder


def scheduled(folder: Path, **changes: Any) -> ScheduledPass:
    """A schedule named nightly in `folder`, with some fields changed."""
    fields: dict[str, Any] = {
        "name": "nightly",
        "when": EVERY_QUARTER,
        "folder": folder,
        "home": folder,
        "command": (sys.executable, "-c", "import sys; print(sys.argv[1:])", AWKWARD),
    }
    return ScheduledPass(**{**fields, **changes})
