"""What `adapruner clean` may remove: a name, an age, files, and how they go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Removal:
    """Something that is no longer needed, last used at `when` (seconds since 1970).

    `forget` removes it from the stores that know it; the files go after that.
    """

    what: str
    when: float
    paths: tuple[Path, ...]
    forget: Callable[[], object] | None = None

    def remove(self) -> None:
        """Removes all of it. What is gone already is no error."""
        if self.forget is not None:
            self.forget()
        for path in self.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def freed_bytes(paths: Iterable[Path]) -> int:
    """The bytes that removing all of `paths` frees: files with a hard link elsewhere stay.

    What is gone already frees nothing.
    """
    found: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        for file in (path, *path.rglob("*")):
            if not os.path.lexists(file):
                continue
            stat = file.lstat()
            if not file.is_dir() or file.is_symlink():
                found.setdefault((stat.st_dev, stat.st_ino), [stat.st_size, stat.st_nlink])[1] -= 1
    return sum(size for size, links_elsewhere in found.values() if links_elsewhere <= 0)
