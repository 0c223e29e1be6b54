"""Several runs side by side: which is best, and which settings differ."""

from __future__ import annotations

from typing import Any

from adapruner.report.runs import compare_runs, shared_perplexity


def test_lines_have_the_results_of_every_run_and_mark_the_best(
    three_runs: list[dict[str, Any]],
) -> None:
    comparison = compare_runs(three_runs)
    lines = {line.name: line for line in comparison.lines}
    assert lines["news_ppl_seq128"].cells == ("33.00", "44.00", "33.00")
    assert lines["news_ppl_seq128"].best == {0, 2}
    assert lines["news_ppl_seq128, of dense"].cells == ("1.50x", "2.00x", "1.50x")
    assert lines["parameters kept"].best == {1}
    assert lines["mean retention"].cells[2] == "-"
    assert lines["decode speedup, batch 1, prompt 128"].values == (1.25, 1.25, None)


def test_equal_results_have_no_best(three_runs: list[dict[str, Any]]) -> None:
    lines = {line.name: line for line in compare_runs(three_runs).lines}
    assert lines["weights on disk"].best == frozenset()


def test_only_settings_that_differ_are_listed(three_runs: list[dict[str, Any]]) -> None:
    (difference,) = compare_runs(three_runs).differences
    assert difference == ("pruning.ratio", ("0.2", "0.3", "0.2"), frozenset({1}))


def test_runs_of_the_same_name_are_numbered(three_runs: list[dict[str, Any]]) -> None:
    assert compare_runs(three_runs).names == ("small", "other", "small (2)")


def test_shared_perplexity_is_one_that_all_runs_have(three_runs: list[dict[str, Any]]) -> None:
    assert shared_perplexity(three_runs) == "news_ppl_seq128"
    without = {**three_runs[0], "metrics": dict.fromkeys(three_runs[0]["metrics"])}
    assert shared_perplexity([three_runs[0], without]) is None
