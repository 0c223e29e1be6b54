"""Content hashes of files, directories and JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
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


def hash_directory(path: Path) -> str:
    """sha256 over the relative names and contents of all files below `path`, as 64 hex digits."""
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path)
        if IGNORED.isdisjoint(name.parts):
            total.update(f"{name.as_posix()}\0{hash_file(file)}\n".encode())
    return total.hexdigest()


def hash_json(value: Any) -> str:
    """sha256 of a JSON value with sorted keys, as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
