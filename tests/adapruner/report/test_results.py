"""Results that several readers compute from a report."""

from __future__ import annotations

from typing import Any

from adapruner.report.results import (
    dense_and_final,
    distinct_models,
    final_model,
    headline_metric,
    mean_retention,
    perplexity_ratio,
    size_ratio,
)


def test_final_model_is_the_fine_tuned_one(report: dict[str, Any]) -> None:
    assert final_model(report) == "finetuned"
    assert dense_and_final(report, "news_ppl_seq128") == (22.0, 33.0)
    assert perplexity_ratio(report, "news_ppl_seq128") == 1.5
    assert mean_retention(report) == (0.6 + 0.62) / 1.3


def test_final_model_without_fine_tuning_is_the_pruned_one(report: dict[str, Any]) -> None:
    for recovery in (None, {"method": "none"}):
        pruned = {**report, "recovery": recovery}
        assert final_model(pruned) == "pruned"
        assert distinct_models(pruned) == ("dense", "pruned")
        assert dense_and_final(pruned, "news_ppl_seq128") == (22.0, 61.0)


def test_headline_is_a_perplexity_where_there_is_one(report: dict[str, Any]) -> None:
    def with_metrics(**metrics: float | None) -> dict[str, Any]:
        return {**report, "metrics": dict.fromkeys(report["metrics"], metrics)}

    assert headline_metric(with_metrics(acc=0.5, news_ppl_seq128=3.0)) == "news_ppl_seq128"
    assert headline_metric(with_metrics(acc=0.5, news_ppl_seq128=None)) == "acc"
    assert headline_metric(with_metrics()) is None


def test_results_that_were_not_measured_are_none(report: dict[str, Any]) -> None:
    bare = {**report, "metrics": dict.fromkeys(report["metrics"]), "retention": None}
    assert dense_and_final(bare, "news_ppl_seq128") is None
    assert perplexity_ratio(bare, "news_ppl_seq128") is None
    assert mean_retention(bare) is None
    assert size_ratio({**report, "params": {"dense": None, "pruned": None}}) is None
