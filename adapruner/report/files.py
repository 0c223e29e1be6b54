"""The report as files: found, read, completed and written as a whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapruner.report import gate
from adapruner.errors import UserError

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
NEEDED = ("name", "params", "metrics", "search", "plan", "finetune", "provenance")
"""Sections without which a file is no report."""


def read(given: Path) -> tuple[dict[str, Any], Path]:
    """The report in a run's results directory, or in a report.json, and the file that it is in.

    Sections that an older version did not write are there, and empty. Raises UserError for what is
    no report.
    """
    file = given / REPORT_FILE if given.is_dir() else given
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        wanted = f"a run's results directory, such as runs/demo, or its {REPORT_FILE}"
        raise UserError(f"there is no '{file}'; give {wanted}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' can't be read as JSON: {error}") from None
    missing = [key for key in NEEDED if not isinstance(report, dict) or key not in report]
    if missing:
        raise UserError(f"'{file}' is not a run's report: it has no '{missing[0]}'")
    return complete(report), file


def complete(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with every section that a reader looks for, empty where it was not measured."""
    absent = {"gate": gate.judge(None, report), "failed_tasks": {}}
    return {**dict.fromkeys(("cost", "behaviour", "retention")), **absent, **report}


def write_page(report: Mapping[str, Any], file: Path) -> None:
    """The report as one HTML file with no reference to anything outside it."""
    from adapruner.report.page import page

    replace_text(file, page(complete(report)))


def replace_text(file: Path, text: str) -> None:
    """Write `file` as a whole or not at all. Raises UserError where it can't be written."""
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    except OSError as error:
        raise UserError(f"'{file}' can't be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
        Path(beside).chmod(0o644)
        Path(beside).replace(file)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
