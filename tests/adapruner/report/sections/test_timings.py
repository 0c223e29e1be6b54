"""Time: seconds of the stages."""

from __future__ import annotations

from typing import Any

from adapruner.report.sections.timings import view
from tests.adapruner.report.reports import TIMINGS


def test_every_stage_has_a_bar_and_the_total_is_their_sum(report: dict[str, Any]) -> None:
    values = view(report)
    assert {bar["name"]: bar["value"] for bar in values["stages"]} == TIMINGS
    assert values["total_s"] == sum(TIMINGS.values())
