"""Content hashes of files, directories and JSON values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

IGNORED = frozenset(
    {
        "timing.json",
        "trial_seconds.json",
        "stage_seconds.json",
        "batch_size.json",
        "__pycache__",
    }
)
"""Names that are not part of a result's content: timings, a batch size, Python's caches."""


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(path: Path) -> dict[str, str]:
    """Relative name -> `hash_file` of all files below `path`."""
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): hash_file(file) for file in files}


def hash_files(hashes: Mapping[str, str]) -> str:
    """The `hash_directory` of a directory with these files: relative name -> `hash_file`."""
    total = hashlib.sha256()
    for name in sorted(map(PurePosixPath, hashes)):
        if IGNORED.isdisjoint(name.parts):
            total.update(f"{name}\0{hashes[str(name)]}\n".encode())
    return total.hexdigest()


def hash_directory(path: Path) -> str:
    """sha256 over the relative names and contents of all files below `path`, as 64 hex digits."""
    return hash_files(file_hashes(path))


def hash_json(value: Any) -> str:
    """sha256 of a JSON value with sorted keys, as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
