"""The test texts of the pool, apart from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from steps.zenml_support.cache import cached_step
from steps.zenml_support.materializer import WithoutWeights
from steps.zenml_support.workspace import stage


@cached_step
def select_test_texts(pool: WithoutWeights) -> Annotated[Path, "test_texts"]:
    """`test.json` of the pool alone: evaluations stay cached where only other splits change.

    It is a step of its own, not a second output of the pool's step: ZenML's cache key of a step
    with several outputs depends on the order of a set, so it differs between processes.
    """
    from adapruner.data.pool import TestTexts

    with stage("select_test_texts") as out:
        TestTexts.read(pool).write(out)
    return out
