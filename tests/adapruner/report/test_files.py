"""Reading report.json and writing the page."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adapruner.errors import UserError
from adapruner.report.files import REQUIRED, read_report, write_page


def written(report: Any, directory: Path) -> Path:
    (directory / "report.json").write_text(json.dumps(report))
    return directory


def test_report_is_read_from_its_directory_or_its_file(
    report: dict[str, Any], tmp_path: Path
) -> None:
    file = written(report, tmp_path) / "report.json"
    assert read_report(tmp_path) == read_report(file) == (report, file)


@pytest.mark.parametrize("entry", REQUIRED)
def test_report_without_a_required_entry_is_refused_by_its_name(
    report: dict[str, Any], tmp_path: Path, entry: str
) -> None:
    content = {key: value for key, value in report.items() if key != entry}
    with pytest.raises(UserError, match=f"no '{entry}'"):
        read_report(written(content, tmp_path))


@pytest.mark.parametrize("content", [[], "text", None])
def test_json_that_is_no_report_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="not the report of a run"):
        read_report(written(content, tmp_path))


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path / "report.json")):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("no JSON")
    with pytest.raises(UserError, match="JSON"):
        read_report(tmp_path)


def test_optional_entries_may_be_absent(report: dict[str, Any], tmp_path: Path) -> None:
    content = {key: report[key] for key in REQUIRED}
    write_page(read_report(written(content, tmp_path))[0], tmp_path / "report.html")
    assert "<h2>Quality</h2>" in (tmp_path / "report.html").read_text()


def test_page_that_can_not_be_written_is_named(report: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "absent" / "page.html"
    with pytest.raises(UserError, match=str(file)):
        write_page(report, file)


def damaged_forms(report: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The report with an entry, or an entry of one, replaced by a value of another kind."""
    others: list[Any] = [None, [], {}, "text", -1, [[]], {"": None}]
    forms = []
    for key, value in report.items():
        forms += [report | {key: other} for other in others]
        if isinstance(value, dict):
            forms += [report | {key: value | {k: o}} for k in value for o in others]
    return random.Random(0).sample(forms, count)


def test_a_damaged_report_is_shown_or_one_line(report: dict[str, Any], tmp_path: Path) -> None:
    from pipelines.cli.main import main

    outcomes = {0: 0, 2: 0, 3: 0}
    for form in damaged_forms(report, 12):
        written(form, tmp_path)
        for command in (["report", str(tmp_path)], ["gate", str(tmp_path)]):
            result = CliRunner().invoke(main, command)
            assert result.exit_code in outcomes, (result.exception, result.output)
            outcomes[result.exit_code] += 1
            if result.exit_code == 2:
                assert len(result.stderr.splitlines()) == 1
    assert outcomes[2] > 0


def test_a_device_is_not_replaced_by_a_page(report: dict[str, Any], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="is no regular file"):
        write_page(report, pipe)
    assert pipe.is_fifo()
