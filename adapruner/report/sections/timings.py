"""Time: the seconds of each stage."""

from __future__ import annotations

from typing import Any

from adapruner.report.results import Report
from adapruner.report.rows import bars
from adapruner.report.sections.base import Inputs, Section


def view(report: Report) -> dict[str, Any]:
    """A bar per stage, and the sum."""
    timings = report["timings_s"]
    return {"stages": bars(timings), "total_s": sum(timings.values())}


def _timings(inputs: Inputs) -> dict[str, float]:
    return dict(inputs.timings_s)


SECTION = Section("time", "Time", view, "timings.html.j2", {"timings_s": _timings})
