"""Temporary folders of processes, and the removal of those whose process was killed."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapruner.locks import Lock, acquire, acquire_existing, holder_of

LOCK_FILE = ".lock"
FOREIGN_DAYS = 7.0
"""Age from which a start removes the folders of other hosts."""


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """An empty folder in `parent` that is removed at the end; a kill leaves it to `abandoned`."""
    folder, lock = claimed_folder(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def claimed_folder(parent: Path, prefix: str) -> tuple[Path, Lock]:
    """A new folder in `parent`, with the lock of this process in it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = acquire(folder / LOCK_FILE)
    assert lock is not None, folder
    return folder, lock


def remove_abandoned(folders: Iterable[Path], foreign_days: float = FOREIGN_DAYS) -> None:
    """Removes the folders among `folders` that are `abandoned`."""
    for folder in abandoned(folders, foreign_days):
        shutil.rmtree(folder, ignore_errors=True)


def abandoned(folders: Iterable[Path], foreign_days: float = FOREIGN_DAYS) -> Iterator[Path]:
    """The folders whose process has ended. Each is locked until the next one is asked for.

    A lock that is free proves that for processes of this host. Not every shared file system shows
    locks to other hosts, so their folders, and those without a lock file, count as abandoned when
    they are unchanged for `foreign_days` as well.
    """
    for folder in folders:
        file = folder / LOCK_FILE
        holder = holder_of(file)
        is_old = changed(folder) <= time.time() - foreign_days * 86400
        if not is_old and (holder is None or holder.host != socket.gethostname()):
            continue
        lock = acquire_existing(file) if file.exists() else None
        if lock is None and file.exists():
            continue
        try:
            yield folder
        finally:
            if lock is not None:
                lock.release()


def changed(folder: Path) -> float:
    """When a folder or an entry of it was last written, in seconds since 1970; 0 if it is gone."""
    times = [0.0]
    with suppress(OSError):
        times += [path.stat().st_mtime for path in (folder, *folder.iterdir())]
    return max(times)
