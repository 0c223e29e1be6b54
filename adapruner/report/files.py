"""The files of a report: report.json is read, report.html is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from adapruner.errors import UserError, first_line
from adapruner.files import read_json, replace_text

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
Table = dict[str, Any]


class _Provenance(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    config: Table


class _Report(BaseModel):
    """The entries that every report has, and what they are. Others may be there or not."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str
    created: str
    metrics: dict[str, Table | None]
    failed_tasks: Table
    params: dict[str, int | None]
    weight_bytes: dict[str, int | None]
    ratio: Table
    plan: Table
    search: Table | None
    recovery: Table | None
    timings_s: dict[str, float]
    provenance: _Provenance
    gate: Table | None


REQUIRED = tuple(_Report.model_fields)
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
    try:
        _Report.model_validate(report)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"'{file}' is damaged: '{where}': {first['msg']}; run it again") from None
    return report, file


@contextmanager
def readable(files: Iterable[Path]) -> Iterator[None]:
    """Turns what the body raises for reports whose entries have other entries than ours into a
    UserError. For reports that were read from files alone: elsewhere such an error is a bug."""
    from jinja2 import TemplateError

    try:
        yield
    except (TemplateError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        names = ", ".join(f"'{file}'" for file in files)
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{names} can't be shown ({problem}); run it again") from error


def write_page(report: Mapping[str, Any], file: Path) -> None:
    """Writes the page of a report, one HTML file without a reference to anything outside it."""
    from adapruner.report.page import page

    replace_text(file, page(report))
