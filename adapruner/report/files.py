"""The files of a report: report.json is read, report.html is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapruner.errors import UserError
from adapruner.files import read_json, replace_text

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
REQUIRED = (
    "name",
    "created",
    "metrics",
    "failed_tasks",
    "params",
    "weight_bytes",
    "ratio",
    "plan",
    "search",
    "recovery",
    "timings_s",
    "provenance",
    "gate",
)
"""Entries that every report has. Readers accept a report without the others."""


def read_report(path: Path) -> tuple[dict[str, Any], Path]:
    """The report in a run's results directory or in a report.json, and the file it was read from.

    Raises UserError for a file that is no report.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    try:
        report = read_json(file)
    except FileNotFoundError:
        example = f"a run's results directory, such as runs/demo, or its {REPORT_FILE}"
        raise UserError(f"'{file}' does not exist; name {example}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' can't be read as JSON: {error}") from None
    missing = [key for key in REQUIRED if not isinstance(report, dict) or key not in report]
    if missing:
        lacks = f"it has no '{missing[0]}'"
        if isinstance(report, dict) and "provenance" in report:
            raise UserError(f"'{file}' is the report of an earlier release: {lacks}; run it again")
        raise UserError(f"'{file}' is not the report of a run: {lacks}")
    return report, file


def write_page(report: Mapping[str, Any], file: Path) -> None:
    """Writes the page of a report, one HTML file without a reference to anything outside it."""
    from adapruner.report.page import page

    replace_text(file, page(report))
