"""Reading the artifacts of the stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.data.pool import PoolSummary
from adapruner.errors import UserError
from adapruner.report.sections import Inputs
from tests.adapruner.report.reports import pool_summary, settings

STAGE = "filter_calibration_pool"


def inputs(stages: dict[str, Path]) -> Inputs:
    return Inputs(settings(), stages, {}, {})


def test_artifact_of_a_stage_is_read(tmp_path: Path) -> None:
    pool_summary().write(tmp_path)
    assert inputs({STAGE: tmp_path}).read(STAGE, PoolSummary) == pool_summary()
    content = inputs({STAGE: tmp_path}).content(STAGE, PoolSummary)
    assert content == pool_summary().model_dump(mode="json")


def test_artifact_that_was_not_written_is_none(tmp_path: Path) -> None:
    for stages in ({}, {STAGE: tmp_path}):
        assert inputs(stages).read(STAGE, PoolSummary) is None
        assert inputs(stages).content(STAGE, PoolSummary) is None


def test_broken_artifact_is_named(tmp_path: Path) -> None:
    (tmp_path / PoolSummary.FILE).write_text("{}")
    with pytest.raises(UserError, match=PoolSummary.FILE):
        inputs({STAGE: tmp_path}).read(STAGE, PoolSummary)
