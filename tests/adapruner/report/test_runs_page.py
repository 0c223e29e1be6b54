"""The page of several runs."""

from __future__ import annotations

from typing import Any

from adapruner.report.runs import compare_runs
from adapruner.report.runs_page import charts, comparison_page
from tests.adapruner.report.pages import Page, assert_self_contained


def test_page_requests_nothing_outside_itself(three_runs: list[dict[str, Any]]) -> None:
    assert_self_contained(comparison_page(compare_runs(three_runs)))


def test_charts_show_what_at_least_two_runs_have(three_runs: list[dict[str, Any]]) -> None:
    all_charts = charts(compare_runs(three_runs))
    assert len(all_charts) == 4, "two qualities against two costs"
    first, _, bare = three_runs
    (heading,) = charts(compare_runs([first, bare]))
    assert "news_ppl_seq128" in heading and "parameters" in heading


def test_rare_setting_is_marked(three_runs: list[dict[str, Any]]) -> None:
    html = comparison_page(compare_runs(three_runs))
    assert "<mark>0.3</mark>" in html and "<mark>0.2</mark>" not in html


def test_names_from_users_are_escaped(three_runs: list[dict[str, Any]]) -> None:
    hostile = {**three_runs[0], "name": "<script>x"}
    html = comparison_page(compare_runs([hostile, three_runs[1]]))
    assert "script" not in Page(html).tags and "&lt;script&gt;x" in html
