"""Lock files of processes: the kernel releases them when a process ends, however it ends.

A lock says more than a process id, which is used again, and which containers share.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from adapruner.files import Record


class Holder(Record):
    """The process that holds, or held last, a lock; `since` is in UTC."""

    host: str
    pid: int
    since: datetime

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds until it releases it or ends."""

    file: Path
    descriptor: int

    def release(self) -> None:
        """The file stays: another process may have it open, to lock it next."""
        os.close(self.descriptor)


def acquire(file: Path) -> Lock | None:
    """The lock of `file`, which is created if absent; None where another process holds it.

    The file then names this process. Raises OSError where the file system has no locks.
    """
    lock = _lock(file, os.O_CREAT)
    if lock is not None:
        holder = Holder(host=socket.gethostname(), pid=os.getpid(), since=datetime.now(UTC))
        os.ftruncate(lock.descriptor, 0)
        os.pwrite(lock.descriptor, holder.model_dump_json().encode(), 0)
    return lock


def acquire_existing(file: Path) -> Lock | None:
    """The lock of a file that another process made; it keeps that process's name."""
    with suppress(OSError):
        return _lock(file, 0)
    return None


def holder_of(file: Path) -> Holder | None:
    """The process that a lock file names; None where it names none."""
    try:
        return Holder.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _lock(file: Path, flags: int) -> Lock | None:
    # Open for writing: NFS locks nothing else.
    descriptor = os.open(file, os.O_RDWR | flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return Lock(file, descriptor)
