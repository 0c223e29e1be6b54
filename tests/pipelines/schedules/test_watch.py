"""Watching with real processes: a small script takes the place of a pass."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapruner.errors import UserError
from pipelines.schedules import watch
from tests.pipelines.services import PATIENCE, Service, started

WATCH = """
import json, sys
from datetime import timedelta
from pipelines.schedules.passes import Passes
from pipelines.schedules.watch import watch
command, seconds, grace = json.loads(sys.argv[1])
sys.exit(watch(Passes(command, grace=grace), timedelta(seconds=seconds)))
"""
INTERRUPTED = """
import signal, threading
wait, sent = threading.Condition.wait, []
def interrupted(self, timeout=None):
    if not sent and threading.current_thread() is threading.main_thread():
        sent.append(signal.raise_signal(signal.SIGTERM))
    return wait(self, timeout)
threading.Condition.wait = interrupted
"""
"""SIGTERM comes while the main thread holds the lock of the event that it is about to wait for."""

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = os.fork()
if worker:
    open(sys.argv[1], "w").write(str(worker))
time.sleep(600)
"""
"""A pass that ignores SIGTERM, as does its worker, whose pid it writes to a file."""


def watching(
    tmp_path: Path, script: str, seconds: float = 1, grace: float = 30, before: str = ""
) -> AbstractContextManager[Service]:
    command = [sys.executable, "-c", script, str(tmp_path / "note")]
    return started(before + WATCH, json.dumps([command, seconds, grace]), cwd=tmp_path)


def test_passes_start_at_multiples_of_the_interval_until_sigterm(tmp_path: Path) -> None:
    script = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(4)"
    with watching(tmp_path, script) as service:
        waits = [service.event("waiting") for _ in range(2)]
        assert service.end(signal.SIGTERM) == 0
    starts = [datetime.fromisoformat(wait["next_start"]) for wait in waits]
    assert all(start.tzinfo == UTC for start in starts)
    assert starts == sorted(set(starts))
    assert all(wait["crashes_in_a_row"] == 0 for wait in waits)
    assert service.count("pass_started") == service.count("pass_ended")
    assert (tmp_path / "note").read_text() == "x" * service.count("pass_ended")
    pass_ended = next(line for line in service.lines if line["event"] == "pass_ended")
    assert pass_ended["outcome"] == "some versions failed"
    assert service.lines[-1]["event"] == "stopped"


def test_sigterm_at_the_start_of_a_wait_ends_it(tmp_path: Path) -> None:
    with watching(tmp_path, "", seconds=600, before=INTERRUPTED) as service:
        assert service.event("stopping")["signal"] == "SIGTERM"
        service.event("stopped")
        assert service.process.wait(PATIENCE) == 0


def test_a_crash_is_logged_and_makes_the_wait_longer(tmp_path: Path) -> None:
    with watching(tmp_path, "import os; os.kill(os.getpid(), 11)", seconds=1) as service:
        assert service.event("pass_ended")["outcome"] == "ended by SIGSEGV"
        assert service.event("waiting")["crashes_in_a_row"] == 1
        assert service.event("waiting")["crashes_in_a_row"] == 2
        assert service.end(signal.SIGINT) == 0
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    assert [watch.interval_after(15 * minute, n) for n in (0, 1, 2, 3)] == [
        15 * minute,
        30 * minute,
        hour,
        hour,
    ]
    assert watch.interval_after(6 * hour, 10**6) == 6 * hour


@pytest.mark.parametrize("signals", [1, 2])
def test_a_pass_that_does_not_stop_is_killed_with_its_workers(tmp_path: Path, signals: int) -> None:
    grace = 0.2 if signals == 1 else 600
    with watching(tmp_path, STUBBORN, seconds=600, grace=grace) as service:
        pid = service.event("pass_started")["pid"]
        while not (tmp_path / "note").exists() or not (tmp_path / "note").read_text():
            assert service.process.poll() is None
        if signals == 2:
            service.process.send_signal(signal.SIGTERM)
            service.event("stopping")
        assert service.end(signal.SIGTERM) == 0
    assert next(x for x in service.lines if x["event"] == "pass_ended")["exit_code"] == -9
    assert service.count("pass_killed") == (signals == 1)
    for ended_pid in (pid, int((tmp_path / "note").read_text())):
        stat = Path(f"/proc/{ended_pid}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_a_missing_file_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        watch.watch_file(tmp_path / "none.yaml", tmp_path, "15m")
    assert not list(tmp_path.iterdir())
