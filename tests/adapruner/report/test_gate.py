"""The gate: what passes, what fails, and that a missing number never passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapruner.config import EvaluationConfig, GateConfig
from adapruner.report.gate import (
    LIMITS,
    MAX_REASONS_LENGTH,
    brief_reasons,
    evaluate_gate,
    reasons,
    state,
)
from adapruner.report.page import page
from tests.adapruner.report.reports import build, settings


@pytest.mark.parametrize(
    ("limits", "passed"),
    [
        ({"perplexity_ratio": 1.5}, True),
        ({"perplexity_ratio": 1.49}, False),
        ({"perplexity_ratio": {"news": 1.6}}, True),
        ({"perplexity_ratio": {"news_ppl_seq128": 1.4}}, False),
        ({"mean_retention": 0.93}, True),
        ({"mean_retention": 0.95}, False),
        ({"task_retention": 0.92}, True),
        ({"task_retention": 0.93}, False),
        ({"task_retention": {"boolq": 0.95}}, True),
        ({"agreement": 0.7}, True),
        ({"agreement": 0.71}, False),
        ({"kl_divergence": 0.5}, True),
        ({"size_ratio": 0.8}, True),
        ({"size_ratio": 0.79}, False),
        ({"decode_speedup": 1.25, "prefill_speedup": 1.2}, True),
        ({"decode_speedup": 1.3}, False),
    ],
)
def test_final_model_is_checked_against_every_limit(
    healthy: dict[str, Any], limits: dict[str, Any], passed: bool
) -> None:
    assert evaluate_gate(GateConfig(**limits), healthy)["passed"] is passed


def test_every_limit_of_the_configuration_has_a_rule() -> None:
    assert set(LIMITS) == set(GateConfig.model_fields)


@pytest.mark.parametrize(
    ("limits", "entry", "value"),
    [
        ({"perplexity_ratio": 9.0}, "metrics", {"dense": {}, "pruned": {}, "finetuned": {}}),
        ({"mean_retention": 0.0}, "retention", None),
        ({"task_retention": 0.0}, "retention", None),
        ({"agreement": 0.0}, "behaviour", None),
        ({"kl_divergence": 9.0}, "behaviour", {"texts": {"news": {"positions": 1}}}),
        ({"size_ratio": 9.0}, "params", {"dense": None, "pruned": None}),
        ({"decode_speedup": 0.1}, "speed", {}),
    ],
)
def test_missing_number_fails(
    healthy: dict[str, Any], limits: dict[str, Any], entry: str, value: Any
) -> None:
    result = evaluate_gate(GateConfig(**limits), {**healthy, entry: value})
    assert result["passed"] is False
    assert all("was not measured" in reason for reason in reasons(result))


def test_perplexity_that_is_not_finite_fails(healthy: dict[str, Any]) -> None:
    metrics = {**healthy["metrics"], "finetuned": {"news_ppl_seq128": None}}
    result = evaluate_gate(GateConfig(perplexity_ratio=1e9), {**healthy, "metrics": metrics})
    assert [check["value"] for check in result["checks"]] == [None]
    assert result["passed"] is False


def test_failed_task_fails_its_limit_and_that_of_the_mean(report: dict[str, Any]) -> None:
    limits = GateConfig(mean_retention=0.1, task_retention=0.1)
    mean, task = reasons(evaluate_gate(limits, report))
    assert "winogrande" in mean
    assert "winogrande" in task and "no rows" in task


def test_unknown_name_is_reported_with_the_measured_ones(healthy: dict[str, Any]) -> None:
    (reason,) = reasons(evaluate_gate(GateConfig(task_retention={"piqqa": 0.5}), healthy))
    assert all(name in reason for name in ("piqqa", "piqa", "boolq"))


def test_pruned_model_is_checked_without_fine_tuning(healthy: dict[str, Any]) -> None:
    pruned = {**healthy, "recovery": {"method": "none", "curve": []}}
    (check,) = evaluate_gate(GateConfig(agreement=0.6), pruned)["checks"]
    assert check["value"] == 0.55


def test_without_a_gate_there_are_no_checks(report: dict[str, Any]) -> None:
    result = evaluate_gate(None, report)
    assert result == {"passed": None, "checks": []}
    assert (state(result), brief_reasons(result)) == ("none", "")


def test_reasons_for_a_tag_are_bounded(healthy: dict[str, Any]) -> None:
    limits = {f"task_{i}": 0.5 for i in range(100)}
    result = evaluate_gate(GateConfig(task_retention=limits), healthy)
    assert state(result) == "failed"
    assert len(brief_reasons(result)) == MAX_REASONS_LENGTH


def test_near_miss_is_reported_with_all_its_digits(healthy: dict[str, Any]) -> None:
    metrics = {"dense": {"t_ppl_seq8": 1.0}, "pruned": {}, "finetuned": {"t_ppl_seq8": 1.50001}}
    result = evaluate_gate(GateConfig(perplexity_ratio=1.5), {**healthy, "metrics": metrics})
    assert "1.50001" in reasons(result)[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gate": {}}, "passes everything"),
        ({"gate": {"task_retention": {}}}, "passes everything"),
        ({"gate": {"mean_retention": 0.9}}, "evaluation.tasks"),
        ({"gate": {"decode_speedup": 1.0}, "speed": False}, "evaluation.speed"),
        ({"gate": {"agreement": 0.5}, "behaviour_windows": 0}, "evaluation.behaviour_windows"),
        ({"gate": {"mean_retention": float("nan")}, "tasks": ["piqa"]}, "finite"),
    ],
)
def test_gate_on_what_the_run_does_not_measure_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig(**settings)


@pytest.mark.parametrize(("limit", "passed"), [(0.79, False), (0.81, True)])
def test_page_shows_the_gate_before_the_results(
    stages: dict[str, Path], limit: float, passed: bool
) -> None:
    report = build(stages, settings(limits={"size_ratio": limit}))
    assert report["gate"]["passed"] is passed
    html = page(report)
    heading = f'class="gate {"passed" if passed else "failed"}"'
    assert html.index(heading) < html.index('class="verdict"')
