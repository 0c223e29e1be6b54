"""Temporary folders of processes, and the removal of those whose process was killed."""

from __future__ import annotations

import glob
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapruner.locks import Lock, acquire, acquire_existing, holder_of

LOCK_FILE, FORMER = ".lock", "former"
FOREIGN_S = 7 * 86400.0
"""Age in seconds from which a start removes folders of other hosts."""
UNLOCKED_S = 3600.0
"""Age in seconds below which a folder without a lock file may be about to get one."""


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder in `parent`, empty but for its lock file, that is removed at the end."""
    folder, lock = claimed_folder(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def claimed_folder(parent: Path, prefix: str) -> tuple[Path, Lock]:
    """A new folder in `parent`, and the lock of its lock file, which this process holds."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = acquire(folder / LOCK_FILE)
    assert lock is not None, folder
    return folder, lock


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Removes those of `folders` that are abandoned."""
    for folder in folders:
        if is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def claim_replacement(target: Path) -> tuple[Path, Lock]:
    """A new folder beside `target` for what replaces it, and for FORMER, what it replaces.

    Folders of killed processes for the same target are removed before.
    """
    for folder in replacements(target.parent, target.name):
        if is_abandoned(folder):
            discard_replacement(folder)
    return claimed_folder(target.parent, f".{target.name}-")


def replacements(parent: Path, name: str = "*") -> list[Path]:
    """The folders in `parent` of `claim_replacement`, for the target `name` or for any."""
    folders = parent.glob(f".{glob.escape(name) if name != '*' else name}-????????")
    return sorted(folder for folder in folders if holder_of(folder / LOCK_FILE) is not None)


def discard_replacement(folder: Path) -> None:
    """Removes an abandoned folder; the target gets back what was moved away without a successor."""
    target, former = folder.with_name(folder.name[1:].rpartition("-")[0]), folder / FORMER
    if former.exists() and not target.exists():
        with suppress(OSError):  # another run has published in between
            former.rename(target)
    shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(folder: Path, foreign_s: float = FOREIGN_S) -> bool:
    """Whether the process of a folder of this module has ended.

    A free lock proves it for a process of this host. Not every shared file system shows locks to
    other hosts: a folder of theirs must be unchanged for `foreign_s` seconds as well, as must one
    without a lock file.
    """
    file = folder / LOCK_FILE
    holder, age = holder_of(file), time.time() - changed(folder)
    is_here = holder is not None and holder.host == socket.gethostname()
    if not is_here and age < foreign_s:
        return False
    if not file.exists():
        return folder.is_dir() and age > UNLOCKED_S
    lock = acquire_existing(file)
    if lock is None:
        return False
    lock.release()
    return True


def changed(folder: Path) -> float:
    """When a folder or an entry of it was last written, in seconds since 1970; now if it is gone.

    The result for a file is that of the file.
    """
    newest = 0.0
    with suppress(FileNotFoundError):
        newest = folder.stat().st_mtime
        if folder.is_dir():
            newest = max([newest, *(path.lstat().st_mtime for path in folder.iterdir())])
    return newest or time.time()
