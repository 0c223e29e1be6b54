"""The directories that a search reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SearchInputs:
    """The dense checkpoint, the pool and the importance table, each a directory."""

    checkpoint: Path
    pool: Path
    importance: Path
