"""Watching with real processes: a small script stands where a pass would."""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from adapruner.errors import UserError
from pipelines.schedules import timetable, watch
from tests.pipelines.services import started

WATCH = """
import json, sys
from datetime import timedelta
from pipelines.passes import Passes
from pipelines.watch import watch
command, seconds, grace = json.loads(sys.argv[1])
sys.exit(watch(Passes(command, grace=grace), timedelta(seconds=seconds)))
"""
# A pass that ignores SIGTERM, and so does its worker, whose pid it writes down.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = os.fork()
if worker:
    open(sys.argv[1], "w").write(str(worker))
time.sleep(600)
"""


def watching(tmp_path: Path, script: str, seconds: float = 1, grace: float = 30):
    command = [sys.executable, "-c", script, str(tmp_path / "note")]
    return started(WATCH, json.dumps([command, seconds, grace]), cwd=tmp_path)


def test_passes_are_made_on_the_grid_one_after_the_other_until_sigterm(tmp_path: Path) -> None:
    script = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(4)"
    with watching(tmp_path, script) as service:
        waits = [service.event("waiting") for _ in range(2)]
        assert service.end(signal.SIGTERM) == 0
    starts = [datetime.fromisoformat(wait["next_start"]) for wait in waits]
    assert all(start.tzinfo == UTC for start in starts)
    assert starts == sorted(set(starts))
    assert all(wait["crashes_in_a_row"] == 0 for wait in waits)
    assert service.count("pass started") == service.count("pass ended")
    assert (tmp_path / "note").read_text() == "x" * service.count("pass ended")
    ended = next(line for line in service.lines if line["event"] == "pass ended")
    assert ended["outcome"] == "some versions failed"
    assert service.lines[-1]["event"] == "stopped"


def test_a_crash_is_logged_and_makes_the_wait_longer(tmp_path: Path) -> None:
    with watching(tmp_path, "import os; os.kill(os.getpid(), 11)", seconds=1) as service:
        assert service.event("pass ended")["outcome"] == "ended by SIGSEGV"
        assert service.event("waiting")["crashes_in_a_row"] == 1
        assert service.event("waiting")["crashes_in_a_row"] == 2
        assert service.end(signal.SIGINT) == 0
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    assert [watch.wait(15 * minute, n) for n in (0, 1, 2, 3)] == [
        15 * minute,
        30 * minute,
        hour,
        hour,
    ]
    assert watch.wait(6 * hour, 10**6) == 6 * hour


@pytest.mark.parametrize("signals", [1, 2])
def test_a_pass_that_does_not_stop_is_killed_with_its_workers(tmp_path: Path, signals: int) -> None:
    grace = 0.2 if signals == 1 else 600
    with watching(tmp_path, STUBBORN, seconds=600, grace=grace) as service:
        pid = service.event("pass started")["pid"]
        while not (tmp_path / "note").exists() or not (tmp_path / "note").read_text():
            assert service.process.poll() is None
        if signals == 2:
            service.process.send_signal(signal.SIGTERM)
            service.event("stopping")
        assert service.end(signal.SIGTERM) == 0
    assert next(x for x in service.lines if x["event"] == "pass ended")["exit_code"] == -9
    assert service.count("pass killed") == (signals == 1)
    for gone in (pid, int((tmp_path / "note").read_text())):
        stat = Path(f"/proc/{gone}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_the_next_start_is_in_utc_and_leaves_out_what_was_missed() -> None:
    quarter = timedelta(minutes=15)
    at = datetime(2030, 1, 1, 12, 14, 59, tzinfo=UTC)
    assert timetable.next_start(at, quarter) == datetime(2030, 1, 1, 12, 15, tzinfo=UTC)
    on_time = datetime(2030, 1, 1, 12, 15, tzinfo=UTC)
    assert timetable.next_start(on_time, quarter) == on_time + quarter
    late = datetime(2030, 1, 1, 13, 7, tzinfo=UTC)
    assert timetable.next_start(late, quarter) == datetime(2030, 1, 1, 13, 15, tzinfo=UTC)
    india = datetime.fromisoformat("2030-01-01T18:00:00+05:30")
    assert timetable.next_start(india, timedelta(days=1)) == datetime(2030, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("given", ["", "15", "m", "0m", "-5m", "1.5h", "15 m", "400d", "٣m"])
def test_an_interval_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(UserError, match="wanted a number and s, m, h or d"):
        timetable.interval(given)


def test_a_command_gets_the_options_of_watching() -> None:
    @click.command()
    @watch.add_watch_options
    def command(watch: bool, every: str | None) -> None:
        print(watch, every)

    run = CliRunner().invoke(command, ["--watch", "--every", "6h"])
    assert run.output == "True 6h\n"
    assert CliRunner().invoke(command, []).output == "False None\n"


def test_a_file_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        watch.watch_file(tmp_path / "none.yaml", tmp_path, "15m")
    assert not list(tmp_path.iterdir())
