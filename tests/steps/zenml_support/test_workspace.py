from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from steps.zenml_support import workspace


@pytest.fixture(autouse=True)
def _scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workspace, "_scratch", lambda: tmp_path)


def test_a_stage_is_timed_and_readable_by_others() -> None:
    with workspace.stage("search") as out:
        (out / "plan.json").write_text("{}")
    assert workspace.seconds_of(out) < 5
    assert out.stat().st_mode & 0o055


def test_a_stage_that_fails_leaves_nothing() -> None:
    with pytest.raises(ZeroDivisionError), workspace.stage("search") as out:
        (out / "half.json").write_text("{")
        raise ZeroDivisionError
    assert not out.exists()


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_has_is_kept(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    left, living, other = (
        tmp_path / f"{name}~x" for name in (f"{host}~{ended.pid}", f"{host}~1", "elsewhere~1")
    )
    for path in (left, living, other):
        path.mkdir()
    workspace._sweep(tmp_path)
    assert [path.exists() for path in (left, living, other)] == [False, True, True]


def test_the_home_folder_is_the_given_one_or_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAPRUNER_HOME", raising=False)
    assert workspace.home() == tmp_path / ".adapruner"
    monkeypatch.setenv("ADAPRUNER_HOME", str(tmp_path / "other"))
    assert workspace.study_storage(None) == f"sqlite:///{tmp_path / 'other' / 'studies.db'}"
    assert workspace.study_storage("sqlite:///mine.db") == "sqlite:///mine.db"
