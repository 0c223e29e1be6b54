"""Search: trials, warm starts, held-out text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from adapruner.config.search import AnyObjective
from adapruner.pruning.plan import PruningPlan, Update
from adapruner.report.page import page
from adapruner.report.sections.search import OBJECTIVES, best_warm_start, held_out_chart, view
from tests.adapruner.report.reports import build, pool_summary
from tests.adapruner.report.searches import trials, write_search


def report_of(directory: Path, *args: Any, **fields: Any) -> dict[str, Any]:
    return build({"search": write_search(directory, *args, **fields)})


def objectives(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What the section shows of each objective."""
    values = view(report)
    assert values is not None
    return list(values["objectives"])


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_unit_follows_from_the_objective(tmp_path: Path, objective: str) -> None:
    report = report_of(tmp_path, trials(6, objective))
    assert [shown["quantity"] for shown in objectives(report)] == [OBJECTIVES[objective]]
    assert OBJECTIVES[objective] in page(report)


def test_every_objective_of_the_search_has_a_unit() -> None:
    assert set(get_args(AnyObjective)) == set(OBJECTIVES)


def test_warm_starts_have_their_trial_and_value(report: dict[str, Any]) -> None:
    starts = report["search"]["warm_starts"]
    assert [start["number"] for start in starts] == [0, 1]
    assert starts[0] == {"number": 0, "name": "fisher-pool", "values": {"perplexity": 70.0}}
    assert best_warm_start(report["search"]) == starts[1]


def test_page_compares_the_selected_trial_with_the_best_warm_start(tmp_path: Path) -> None:
    html = page(report_of(tmp_path / "a", trials(6)))
    assert "number 3" in html and "47.50" in html
    assert "the best warm start, &lt;script" in html
    assert "which is the warm start fisher-pool" in page(report_of(tmp_path / "b", trials(1)))


def test_trials_without_a_finite_value_are_not_in_the_chart(tmp_path: Path) -> None:
    rows = list(trials(5))
    rows[2] = rows[2].model_copy(update={"values": {"perplexity": float("inf")}})
    (values,) = objectives(report_of(tmp_path, tuple(rows)))
    assert "trial 4: " in values["chart"] and "trial 2: " not in values["chart"]


def test_search_without_any_finite_value_has_no_section(tmp_path: Path) -> None:
    row = trials(1)[0].model_copy(update={"values": {"perplexity": float("inf")}})
    report = report_of(tmp_path, (row,))
    assert view(report) is None
    assert 'id="search"' not in page(report)


def test_held_out_chart_needs_two_trials(report: dict[str, Any], tmp_path: Path) -> None:
    chart = held_out_chart(report["search"], "perplexity")
    assert chart is not None and "trial 3: 47.50 in the search, 50.50 held out" in chart
    assert held_out_chart(report_of(tmp_path, trials(1))["search"], "perplexity") is None


def test_importance_is_shown_for_enough_trials(tmp_path: Path) -> None:
    few, many = report_of(tmp_path / "a", trials(4)), report_of(tmp_path / "b", trials(20))
    assert objectives(few)[0]["importance"] == []
    bars = objectives(many)[0]["importance"]
    assert {bar["name"] for bar in bars} == {"alpha_coarse", "set_size"}
    assert sum(bar["value"] for bar in bars) == pytest.approx(1)


def test_page_shows_the_mix_of_the_domains_and_the_stopped_trials(tmp_path: Path) -> None:
    summary = pool_summary()
    names = [domain.name for domain in summary.domains]
    shares = tuple((i + 1) / sum(range(1, len(names) + 1)) for i in range(len(names)))
    stopped = tuple(t.model_copy(update={"state": "stopped"}) for t in trials(6)[2:4])
    search = write_search(tmp_path / "search", (*trials(6)[:2], *stopped, *trials(6)[4:]))
    changed = PruningPlan.read(search).model_copy(
        update={"update": Update(shares=shares), "provenance": {"recipe": {"shares": shares[::-1]}}}
    )
    changed.write(search)
    (tmp_path / "pool").mkdir()
    summary.write(tmp_path / "pool")
    stages = {"search": search, "filter_calibration_pool": tmp_path / "pool"}
    report = build(stages)
    assert report["search"]["mix"] == {
        "scores": dict(zip(names, shares[::-1], strict=True)),
        "update": dict(zip(names, shares, strict=True)),
    }
    text = page(report)
    assert "Mix of the calibration domains" in text
    assert "2 trials were stopped early" in text
