"""Reports in a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from adapruner.report.runs import compare_runs
from adapruner.report.terminal import comparison_table, report_summary
from tests.adapruner.report.reports import build, settings


def printed(content: RenderableType) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(content)
    return console.export_text()


def test_models_are_side_by_side(report: dict[str, Any]) -> None:
    lines = printed(report_summary(report)).splitlines()
    (perplexity,) = (line for line in lines if "news_ppl_seq128" in line)
    values = [word for word in perplexity.split() if word[0].isdigit()]
    assert values == ["22.00", "61.00", "33.00"]
    assert "+50.0 %" in perplexity


def test_gate_comes_first_with_a_line_per_check(stages: dict[str, Path]) -> None:
    limits = {"size_ratio": 0.79, "perplexity_ratio": 2.0}
    lines = printed(report_summary(build(stages, settings(limits=limits)))).splitlines()
    assert "FAILED" in lines[0]
    assert [line.split()[0] for line in lines[1:3]] == ["ok", "FAIL"]


def test_run_without_a_gate_has_no_gate_lines(report: dict[str, Any]) -> None:
    assert "gate" not in printed(report_summary(report))


def test_comparison_names_every_run_and_every_difference(
    three_runs: list[dict[str, Any]],
) -> None:
    text = printed(comparison_table(compare_runs(three_runs)))
    for word in ("other", "small (2)", "gate", "pruning.ratio", "2.00x"):
        assert word in text


def test_markup_in_a_name_is_text(three_runs: list[dict[str, Any]]) -> None:
    hostile = {**three_runs[0], "name": "[bold]x[/]"}
    assert "[bold]x[/]" in printed(comparison_table(compare_runs([hostile, three_runs[1]])))
