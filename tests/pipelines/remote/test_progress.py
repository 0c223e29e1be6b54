"""The end of a run that ZenML's server does not notice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PIPELINE = """
from zenml import pipeline, step

@step
def work() -> None:
    pass

@pipeline(enable_cache=False)
def small():
    work()
"""
# The state that a pod leaves that was killed on an orchestrator that does not say so.
SCRIPT = """
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pipelines import stack
home = Path("home").absolute()
stack.use_home(home)
stack.ensure_stack(home)
from zenml.client import Client
from pipelines.remote import progress
from work import small
run = small()
database = next(home.rglob("zenml.db"))
orchestrator = Client().active_stack.orchestrator
progress.POLL_SECONDS = 0.01

def set_silence(minutes):
    beat = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=minutes)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE pipeline_run SET status = 'running', in_progress = 1")
        connection.execute(
            "UPDATE step_run SET status = 'running', heartbeat_threshold = 30, "
            "latest_heartbeat = ?", (str(beat),)
        )

set_silence(29)
print("ended:", progress._has_ended(orchestrator, run))
set_silence(31)
progress.follow(run.id, orchestrator, print)
"""


@pytest.mark.slow
def test_a_run_whose_step_shows_no_life_for_30_minutes_has_failed(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(PIPELINE)
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ended: False" in result.stdout
    assert "FailedRunError: the step work of the run small" in result.stderr.splitlines()[-1]
    assert "no life for 30 minutes" in result.stderr
