"""Examples: continuations, and rows that changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.report.page import page
from adapruner.report.sections.examples import view
from tests.adapruner.report.reports import minimal_report


def test_continuations_of_all_models_are_side_by_side(report: dict[str, Any]) -> None:
    values = view(report)
    assert values is not None
    (entry,) = values["continuations"]
    assert values["models"] == ("dense", "pruned", "finetuned")
    assert all(model in entry for model in values["models"])


def test_changed_rows_are_listed_by_their_ids(report: dict[str, Any]) -> None:
    html = page(report)
    assert "piqa: 8 broken, 3 fixed" in html
    assert "<dd>65, 66, 67</dd>" in html


def test_run_without_behaviour_and_tasks_has_no_examples(tmp_path: Path) -> None:
    report = minimal_report(tmp_path)
    assert view(report) is None
    assert 'id="examples"' not in page(report)
