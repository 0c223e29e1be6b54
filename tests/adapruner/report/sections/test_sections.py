"""What holds for every section in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapruner.report.page import render
from adapruner.report.sections import SECTIONS, Section
from tests.adapruner.report.reports import minimal_report

every_section = pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.id)


@every_section
def test_section_of_a_full_report_renders(section: Section, report: dict[str, Any]) -> None:
    values = section.view(report)
    assert values is not None
    assert render(section.template, **values).strip()
    section.rows(report)


@every_section
def test_section_of_a_minimal_report_renders_or_is_left_out(
    section: Section, tmp_path: Path
) -> None:
    report = minimal_report(tmp_path)
    values = section.view(report)
    assert values is None or render(section.template, **values).strip()
    section.rows(report)


def test_only_the_header_has_no_title_and_ids_are_unique() -> None:
    assert [section for section in SECTIONS if not section.title] == [SECTIONS[0]]
    assert len({section.id for section in SECTIONS}) == len(SECTIONS)
