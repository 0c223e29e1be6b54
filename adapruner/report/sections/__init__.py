"""The table of the report's sections. A new section is a module here and a line in the table."""

from __future__ import annotations

from adapruner.report.sections import (
    calibration_pool,
    cost,
    cut,
    examples,
    headline,
    quality,
    recovery,
    repeat,
    search,
    target,
    timings,
)
from adapruner.report.sections.base import Inputs, Section

SECTIONS: tuple[Section, ...] = (
    headline.SECTION,
    quality.SECTION,
    target.SECTION,
    cost.SECTION,
    cut.SECTION,
    search.SECTION,
    recovery.SECTION,
    examples.SECTION,
    timings.SECTION,
    calibration_pool.SECTION,
    repeat.SECTION,
)

__all__ = ["SECTIONS", "Inputs", "Section"]
