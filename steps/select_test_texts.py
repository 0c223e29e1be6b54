"""The test texts of the pool, apart from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def take_test_texts(pool: Path) -> Annotated[Path, "test_texts"]:
    """`test.json` alone: where another calibration split leaves the same test text, what was
    measured on it stays as it is.

    A step of its own, and not a second output of the pool's: the cache key that ZenML gives a step
    of several outputs changes with the order of a set, so from process to process.
    """
    with stage("take_test_texts") as out:
        shutil.copyfile(pool / "test.json", out / "test.json")
    return out
