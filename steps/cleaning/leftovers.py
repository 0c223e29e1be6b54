"""What processes left behind that were killed: work folders, incomplete copies and results."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from adapruner.remote_files import PARTIAL
from adapruner.temporary import (
    UNLOCKED_S,
    changed,
    discard_replacement,
    is_abandoned,
    replacements,
)
from steps.cleaning.removal import Removal
from steps.zenml_support.workspace import CACHE, WORK, downloaded, fetched, home


def leftovers(outputs: Iterable[Path], foreign_s: float) -> list[Removal]:
    """The folders of ended processes in the home, on this machine, and in the folders `outputs`.

    Those of other hosts count when they are unchanged for `foreign_s` seconds.
    """
    found = [
        Removal(f"{what} {folder}", changed(folder), (folder,))
        for what, folder in _temporary_folders()
        if is_abandoned(folder, foreign_s)
    ]
    found += _incomplete_files()
    for parent in sorted(set(outputs)):
        found += [
            Removal(
                f"incomplete results {folder}",
                changed(folder),
                (folder,),
                partial(discard_replacement, folder),
            )
            for folder in replacements(parent)
            if is_abandoned(folder, foreign_s)
        ]
    return found


def _incomplete_files() -> list[Removal]:
    """Files that a killed process did not finish in ADAPRUNER_CACHE: none has grown for an hour."""
    cache = os.environ.get(CACHE)
    files = sorted(Path(cache).glob("??/" + "?" * 64 + ".*")) if cache else []
    found = [Removal(f"incomplete copy {file}", changed(file), (file,)) for file in files]
    return [removal for removal in found if time.time() - removal.when > UNLOCKED_S]


def _temporary_folders() -> Iterator[tuple[str, Path]]:
    roots = [home() / "artifacts", Path(tempfile.gettempdir())]
    if cache := os.environ.get(CACHE):
        roots.append(Path(cache))
    for root in roots:
        yield from (("work folder", folder) for folder in sorted(root.glob(f"{WORK}/*")))
    for root in (downloaded(), fetched()):
        yield from (("incomplete copy", folder) for folder in sorted(root.glob(f"*/{PARTIAL}*")))
