"""How much memory this process may still take."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")

_PROCESS_LIMITS = ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData"))
"""Limit of a process -> what counts, in its status file."""

_MMAP_THRESHOLD = -3
"""The parameter of `mallopt` that gives larger blocks pages of their own (malloc.h)."""

_CGROUPS = (  # version 2, version 1: limit, use, and the part of it that the kernel can give back
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
     "total_inactive_file"),
)  # fmt: skip


def available_memory() -> int:
    """Bytes of main memory: what is free, and allowed by limits of the process and its container.

    Processes of one machine that torchrun started have equal parts of it.
    """
    limits = [_free(), *(left for _, left in _container(Path("/sys/fs/cgroup")))]
    own = int(min(limits)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    status = _fields(_STATUS)
    for limit, used in _PROCESS_LIMITS:
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            own = min(own, most - status.get(used, 0) * 1024)
    return max(own, 0)


def process_bytes(field: str) -> int:
    """A size in the status of this process, such as VmRSS. Raises KeyError where there is none.

    VmHWM is the largest resident size since the process began to run its program. Unlike the
    maximum of `getrusage`, it does not include that of the process that started this one.
    """
    return _fields(_STATUS)[field] * 1024


def total_memory() -> int:
    """Bytes of main memory that this process could have if no other took any."""
    limits = [_machine(), *(most for most, _ in _container(Path("/sys/fs/cgroup")))]
    limits += [resource.getrlimit(limit)[0] for limit, _ in _PROCESS_LIMITS]
    return min(limit for limit in limits if limit != resource.RLIM_INFINITY)


def total_on(device: torch.device, *, all_devices: bool) -> int:
    """Bytes of memory of a device, or of all GPUs together, whatever else uses them now."""
    if device.type != "cuda":
        return total_memory()
    gpus = range(torch.cuda.device_count()) if all_devices else [device]
    return sum(torch.cuda.mem_get_info(gpu)[1] for gpu in gpus)


def available_on(device: torch.device, *, all_devices: bool) -> int:
    """Bytes available on a device, or on all GPUs together."""
    if device.type != "cuda":
        return available_memory()
    gpus = range(torch.cuda.device_count()) if all_devices else [device]
    return sum(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)


def return_freed_memory() -> None:
    """Has the C library give freed tensors back to the system, for the rest of the process.

    By default glibc keeps freed blocks of up to 32 MiB in its heaps, one heap for each thread, so
    that a sweep over many layers takes several times the memory of what is in use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**17)  # the value that glibc starts with and raises


def _free() -> int:
    fields = _fields(Path("/proc/meminfo"))
    return fields["MemAvailable"] * 1024 if "MemAvailable" in fields else _machine()


def _machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container(root: Path) -> list[tuple[int, int]]:
    """The limit of the container, and what it leaves; empty where there is none."""
    for limit, use, statistics, reclaimable in _CGROUPS:
        try:
            most = int((root / limit).read_text())
            used = int((root / use).read_text())
        except (OSError, ValueError):  # another version, or "max"
            continue
        return [(most, most - used + _fields(root / statistics).get(reclaimable, 0))]
    return []


def _fields(file: Path) -> dict[str, int]:
    """Name -> number of a file with one of each in a line; empty where there is no such file."""
    try:
        rows = [line.replace(":", " ").split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
