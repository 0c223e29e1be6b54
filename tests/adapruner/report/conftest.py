"""The reports that most tests of this folder read. Tests that change one build their own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.adapruner.report.reports import build, write_stages


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Path]:
    """The stages of a run without tasks."""
    return write_stages(tmp_path / "stages")


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A report with two tasks and a third one that failed."""
    return build(write_stages(tmp_path_factory.mktemp("run") / "stages", tasks=True))


@pytest.fixture
def healthy(report: dict[str, Any]) -> dict[str, Any]:
    """A report whose tasks all worked."""
    return {**report, "failed_tasks": {}}


@pytest.fixture(scope="session")
def three_runs(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A run, another one with a higher ratio, and one of the first name with less measured."""
    other, bare = copy.deepcopy(report), copy.deepcopy(report)
    other["name"] = "other"
    other["params"]["pruned"] = 700_000
    other["metrics"]["finetuned"]["news_ppl_seq128"] = 44.0
    other["provenance"]["config"]["pruning"]["ratio"] = 0.3
    for absent in ("retention", "behaviour", "cost", "speed"):
        bare[absent] = None
    return [report, other, bare]
