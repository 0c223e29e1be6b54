from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.schedules.users import make_home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home where systemd does not run and the crontab is a file."""
    return make_home(tmp_path, monkeypatch)
