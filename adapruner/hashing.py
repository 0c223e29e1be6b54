"""Content hashes: what a stage's result is told apart by."""

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
"""Files that say how long something took or how fast it shall go, and Python's own: not part of a
result's content."""


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
    """sha256 of a JSON value in its canonical spelling, as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
