"""A home folder that several processes use, each of them a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapruner.errors import UserError
from pipelines import home as homes

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]

SETS_UP = """
import sys, time
from pathlib import Path
from pipelines import home
with home.exclusive(Path("home")):
    print("inside", flush=True)
    time.sleep(float(sys.argv[1]))
"""
USES = """
import sys
from pathlib import Path
from pipelines import home
with home.exclusive(Path("home")):
    home.enter(Path("home").absolute())
print("inside", flush=True)
sys.stdin.read()
"""
FIRST_RUN = """
import sys
from pathlib import Path
from pipelines import stack
stack.use_home(Path("home"))
from pipelines.local_run import prepare
import mlflow, zenml.client, zenml.zen_stores.sql_zen_store
from steps.mlflow_support import tracking
print("ready", flush=True)
sys.stdin.readline()
prepare(Path("home"))
from zenml.client import Client
print(Client().active_stack.name, tracking.experiment_id(tracking.connect()))
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a program and waits for its first line."""
    monkeypatch.chdir(tmp_path)
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdin=pipe, stdout=pipe, stderr=pipe,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None and process.stdout.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_two_first_runs_in_a_new_home_at_the_same_time_both_start(start: Start) -> None:
    runs = [start(FIRST_RUN), start(FIRST_RUN)]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    outputs = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    names = {out.split()[0] for out, _ in outputs}
    experiments = {out.split()[1] for out, _ in outputs}
    assert names == {"adapruner"} and len(experiments) == 1


def test_who_waits_for_the_home_says_for_whom_in_one_line(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    other = start(SETS_UP, "1")
    with homes.exclusive(Path("home")):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Waiting: home is being set up or cleaned by process {other.pid} on ")
    assert " since 2" in line


def test_a_wait_without_end_is_an_error_and_a_killed_process_holds_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start(SETS_UP, "60")
    monkeypatch.setattr(homes, "PATIENCE", 0.0)
    with pytest.raises(UserError, match=f"process {other.pid} on .*; wait until it ends"):
        homes.exclusive(Path("home")).__enter__()
    other.kill()
    other.wait()
    with homes.exclusive(Path("home")):
        pass


def test_the_users_of_a_home_are_the_processes_that_have_not_ended(start: Start) -> None:
    running, killed, finished = start(USES), start(USES), start(USES)
    killed.kill()
    killed.wait()
    finished.communicate("")
    with homes.exclusive(Path("home")):
        assert [user.pid for user in homes.other_users(Path("home"))] == [running.pid]
    assert len(list(Path("home", "locks").iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "setup").mkdir()
    with pytest.raises(UserError, match="can't be locked"), homes.exclusive(tmp_path):
        pass
