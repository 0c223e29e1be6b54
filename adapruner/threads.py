"""How many threads compute, and how they wait: settings that PyTorch reads when it is imported.

They are of the environment, so that processes that are started have them too, and they are left as
they are where the user has set them.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_QUOTAS = (
    ("cpu.max",),
    ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
)
"""Files with the CPU time of a period and the period, of version 2 and of version 1."""

_SPINS = "1000"
"""How often a thread looks for work before it sleeps: microseconds, the time between two loops."""

IS_SET = "OMP_NUM_THREADS" in os.environ
"""Whether the user decides how many threads each process has."""


def set_defaults() -> None:
    """Threads that wait sleep soon, and a container's quota of CPUs is the number of threads.

    Threads that spin while they wait take the time of other processes, and of each other: on a
    machine whose cores are busy a pass takes ten times as long. PyTorch would start a thread for
    each core of the machine, whatever the quota.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # of GNU's OpenMP, which PyTorch has
    if cores() < _available():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def cores(cgroup: Path = _CGROUP) -> int:
    """The number of cores that this process may use, at least 1."""
    available = _available()
    for files in _QUOTAS:
        try:
            quota, period = " ".join((cgroup / file).read_text() for file in files).split()
            share = int(quota) / int(period)
        except (OSError, ValueError):  # no such version, or "max": no quota
            continue
        if share > 0:  # -1: no quota
            available = min(available, max(math.floor(share), 1))
    return available


def _available() -> int:
    """The number of cores without the quota."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS
