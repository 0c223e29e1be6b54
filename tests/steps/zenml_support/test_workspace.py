from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from steps.zenml_support import workspace
from steps.zenml_support.workspace import Timing

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workspace, "_scratch", lambda: tmp_path)


def test_a_stage_directory_is_timed_and_readable_by_other_users() -> None:
    with workspace.stage("search") as out:
        (out / "plan.json").write_text("{}")
    assert Timing.read(out).seconds < 5
    assert out.stat().st_mode & 0o055


def test_the_timing_is_not_among_the_result_files_of_a_stage() -> None:
    with workspace.stage("search") as out:
        for name in ("trials.json", "plan.json"):
            (out / name).write_text("{}")
    assert [path.name for path in workspace.result_files(out)] == ["plan.json", "trials.json"]


def test_a_stage_that_fails_leaves_no_files() -> None:
    with pytest.raises(ZeroDivisionError), workspace.stage("search") as out:
        (out / "half.json").write_text("{")
        raise ZeroDivisionError
    assert not out.exists()


def test_stage_directories_are_removed_on_request_and_can_be_created_again() -> None:
    with workspace.stage("search") as first:
        pass
    workspace.remove_stage_directories()
    assert not first.exists()
    with workspace.stage("search") as second:
        pass
    assert second.is_dir()


CLAIMS = """
import socket, sys, time
from pathlib import Path
from adapruner.temporary import claimed_folder
print(claimed_folder(Path(sys.argv[1]), f"{socket.gethostname()}~")[0], flush=True)
time.sleep(60)
"""


def test_the_start_of_a_process_removes_what_killed_ones_left(tmp_path: Path) -> None:
    work = tmp_path / workspace.WORK
    (work / "elsewhere~ended").mkdir(parents=True)
    command = [sys.executable, "-c", CLAIMS, str(work)]
    killed, running = (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    try:
        assert killed.stdout is not None and running.stdout is not None
        left, used = Path(killed.stdout.readline().strip()), Path(running.stdout.readline().strip())
        assert left.is_dir() and used.is_dir()
        killed.kill()
        killed.wait()
        workspace._process_directory.cache_clear()
        with workspace.stage("search"):
            assert (left.exists(), used.exists()) == (False, True)
            assert (work / "elsewhere~ended").exists()
    finally:
        for process in (killed, running):
            process.kill()
            process.wait()


def test_the_home_folder_is_the_configured_one_or_in_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAPRUNER_HOME", raising=False)
    assert workspace.home() == tmp_path / ".adapruner"
    assert workspace.home().is_dir()
    monkeypatch.setenv("ADAPRUNER_HOME", str(tmp_path / "other"))
    assert workspace.home() == tmp_path / "other"


def test_studies_are_in_the_home_folder_unless_a_storage_is_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADAPRUNER_HOME", str(tmp_path))
    assert workspace.study_storage(None) == f"sqlite:///{tmp_path / 'studies.db'}"
    assert workspace.study_storage("sqlite:///mine.db") == "sqlite:///mine.db"
