"""Calibration pool: tables of sources and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.report.page import page
from adapruner.report.sections.calibration_pool import table, view
from tests.adapruner.report.reports import minimal_report
from tests.adapruner.report.searches import HOSTILE


def test_sources_have_a_column_per_count(report: dict[str, Any]) -> None:
    values = view(report)
    assert values is not None
    sources = values["tables"]["sources"]
    assert sources["heads"] == ["read", "too_short", "duplicate", "kept", "used"]
    first, second = sources["rows"]
    assert first["cells"] == ["12", "1", "2", "9", "-"]
    assert second["cells"][0] == "1,500"
    assert first["name"] == "finetune.source"
    assert HOSTILE in first["words"]


def test_domains_are_a_table(report: dict[str, Any]) -> None:
    values = view(report)
    assert values is not None
    domains = values["tables"]["domains"]
    assert domains["heads"] == ["calibration", "update"]
    assert domains["rows"][1] == {
        "name": "cluster 2: city, river",
        "words": [],
        "cells": ["24", "1,036"],
    }
    html = page(report)
    assert "<h3>Domains</h3>" in html and HOSTILE not in html


def test_hashes_are_short_on_the_page_and_whole_in_the_report(report: dict[str, Any]) -> None:
    html = page(report)
    assert "content hash cdcdcdcdcdcd…" in html and "cd" * 32 not in html
    assert report["pool"]["sources"][0]["content_hash"] == "cd" * 32


def test_identifiers_have_no_thousands_separators(report: dict[str, Any]) -> None:
    values = view(report)
    assert values is not None and ("seed", "1234567") in values["facts"]


def test_rows_of_a_mapping_are_named_by_its_keys() -> None:
    assert table({"test": {"used": 1, "note": "whole"}}) == {
        "heads": ["used"],
        "rows": [{"name": "test", "words": ["whole"], "cells": ["1"]}],
    }


def test_report_without_a_pool_has_no_section(tmp_path: Path) -> None:
    assert view(minimal_report(tmp_path)) is None
