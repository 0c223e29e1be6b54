"""The threads of a process, and of those that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapruner.threads import cores

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
SHOW = "import adapruner, os, json; print(json.dumps([os.environ.get(n) for n in {!r}]))"


def variables(**own: str) -> str:
    """What a process with these variables has of NAMES once the package is imported."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", SHOW.format(NAMES)]
    return subprocess.run(
        command, env=environment | own, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_waiting_threads_sleep_soon() -> None:
    assert variables().startswith('["passive", "1000"')


def test_the_users_settings_stay() -> None:
    own = variables(OMP_WAIT_POLICY="active", OMP_NUM_THREADS="3")
    assert own == '["active", null, "3"]'


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000000 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_quota_of_cpus_limits_the_threads(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores(tmp_path) == (expected or len(os.sched_getaffinity(0)))
