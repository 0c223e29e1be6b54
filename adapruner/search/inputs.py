"""The directories that a search reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SearchInputs:
    """Directories: the dense checkpoint, the pool, and the results of the stages after it.

    A search with a ratio of latency needs the latency table.
    """

    checkpoint: Path
    pool: Path
    importance: Path
    gram_matrices: Path
    objective_tasks: Path
    latency: Path | None = None
