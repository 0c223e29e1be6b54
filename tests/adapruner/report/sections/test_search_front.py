"""The front of a search of several objectives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from adapruner.config.search import AnyObjective
from adapruner.report.page import page
from adapruner.report.sections.search_front import AXES, FAINT, front_view
from tests.adapruner.report.reports import build
from tests.adapruner.report.searches import HOSTILE, trials, write_search


def report_of(directory: Path, total: int, *objectives: str) -> dict[str, Any]:
    return build({"search": write_search(directory, trials(total, *objectives))})


def test_every_objective_has_an_axis() -> None:
    assert set(AXES) == set(get_args(AnyObjective))


def test_a_single_objective_has_no_front(report: dict[str, Any]) -> None:
    assert front_view(report["search"]) is None
    assert "Pareto front" not in page(report)


def test_picture_has_all_candidates_with_units_and_the_dominated_ones_faint(
    tmp_path: Path,
) -> None:
    report = report_of(tmp_path, 9, "kl", "margin")
    view = front_view(report["search"])
    assert view is not None
    wide, _ = view["chart"].split('<svg class="narrow"')
    assert AXES["kl"] in wide and AXES["margin"] in wide
    tips = re.findall(r"<title>(\S.*?) (\d+): kl [\d.-]+, margin [\d.-]+</title>", wide)
    assert sorted(int(number) for _, number in tips) == list(range(9))
    front = report["search"]["held_out"]["front"]
    assert 1 < len(front) < 9
    assert len(re.findall(f"<use [^>]*opacity: {FAINT}", wide)) == 9 - len(front)
    assert HOSTILE not in wide


@pytest.mark.parametrize("names", [("perplexity", "margin"), ("kl", "margin", "perplexity")])
def test_table_has_the_points_of_the_front_and_the_choice(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    report = report_of(tmp_path, 9, *names)
    search, html = report["search"], page(report)
    view = front_view(search)
    assert view is not None
    assert sorted(t["number"] for t in view["trials"]) == search["held_out"]["front"]
    firsts = [t["held_out"][names[0]] for t in view["trials"]]
    assert firsts == sorted(firsts)
    part = html[html.index("Pareto front on held-out text") :].partition("</table>")[0]
    assert part.count(">selected<") == 1
    assert f'<tr class="best"><td>{search["best"]["number"]}</td>' in part
    for name in names:
        assert f"{name}, held out" in part and f"{name}, in the search" in part
    assert ("first two objectives only" in html) == (len(names) > 2)
    assert "is nearest to the ideal point on held-out text" in html


def test_each_objective_has_its_trials_and_its_importance(tmp_path: Path) -> None:
    html = page(report_of(tmp_path, 20, "kl", "margin"))
    assert "Trials: mean KL divergence" in html and "Trials: mean margin loss" in html
    for name in ("kl", "margin"):
        assert f"Importance of each parameter for {name}" in html
