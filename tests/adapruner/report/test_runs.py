"""Runs beside each other: what is best, what differs, and the page of it."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from adapruner.report import runs as comparison
from adapruner.report import runs_page as comparison_html
from adapruner.report.files import complete
from tests.adapruner.report.reports import build, write_stages
from tests.adapruner.report.test_build import parse


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    first = complete(build(write_stages(tmp_path_factory.mktemp("stages")), with_tasks=True))
    second, old = copy.deepcopy(first), copy.deepcopy(first)
    second["name"] = "other"
    second["params"]["pruned"] = 700_000
    second["metrics"]["finetuned"]["news_ppl_seq128"] = 44.0
    second["provenance"]["config"]["pruning"]["ratio"] = 0.3
    for absent in ("retention", "behaviour", "cost", "speed"):
        old[absent] = None
    return [first, second, old]


def test_the_best_of_each_line_and_what_differs_are_found(reports: list[dict[str, Any]]) -> None:
    found = comparison.compare(reports)
    assert found.names == ("small", "other", "small (2)")
    lines = {line.name: line for line in found.lines}
    assert lines["news_ppl_seq128"].cells == ("33.00", "44.00", "33.00")
    assert lines["news_ppl_seq128"].best == {0, 2}
    assert lines["news_ppl_seq128, of dense"].cells == ("1.50x", "2.00x", "1.50x")
    assert lines["parameters left"].best == {1}
    assert lines["mean retention"].cells[2] == "-"
    (difference,) = found.differences
    assert difference == ("pruning.ratio", ("0.2", "0.3", "0.2"), frozenset({1}))


def test_the_terminal_names_every_run(reports: list[dict[str, Any]]) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison.table(comparison.compare(reports)))
    shown = console.export_text()
    for word in ("other", "small (2)", "gate", "pruning.ratio", "2.00x"):
        assert word in shown


def test_the_page_charts_what_at_least_two_runs_have(reports: list[dict[str, Any]]) -> None:
    page = comparison_html.page(comparison.compare(reports))
    found = parse(page)
    assert page.count("<svg") == 2 * 4  # two qualities against size and speed; wide and narrow
    assert "<mark>0.3</mark>" in page and "<mark>0.2</mark>" not in page
    assert not found.tags & {"script", "link", "img", "iframe", "object"}
    assert all(target.startswith("#") for target in found.fetched)
    assert len(found.ids) == len(set(found.ids))
    alone = comparison_html.page(comparison.compare([reports[0], reports[2]]))
    assert alone.count("<svg") == 2  # perplexity against size is all that both have


def test_a_hostile_name_is_text(reports: list[dict[str, Any]], tmp_path: Path) -> None:
    hostile = {**reports[0], "name": "<script>[bold]x[/]"}
    found = comparison.compare([hostile, reports[1]])
    assert "<script" not in comparison_html.page(found)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison.table(found))
    assert "[bold]x[/]" in console.export_text()
