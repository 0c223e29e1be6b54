"""The gate: what passes, what fails, and that a missing number is never taken for a good one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapruner.config import EvaluationConfig, GateConfig
from adapruner.report.gate import REASONS_LENGTH, brief_reasons, judge, reasons, state
from tests.adapruner.report.reports import build, write_stages


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return build(write_stages(tmp_path_factory.mktemp("stages")), with_tasks=True)


@pytest.fixture(scope="module")
def healthy(report: dict[str, Any]) -> dict[str, Any]:
    return {**report, "failed_tasks": {}}


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
def test_the_delivered_model_is_held_against_every_limit(
    healthy: dict[str, Any], limits: dict[str, Any], passed: bool
) -> None:
    assert judge(GateConfig(**limits), healthy)["passed"] is passed


@pytest.mark.parametrize(
    ("limits", "section", "value"),
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
def test_a_number_that_is_missing_fails(
    healthy: dict[str, Any], limits: dict[str, Any], section: str, value: Any
) -> None:
    judged = judge(GateConfig(**limits), {**healthy, section: value})
    assert judged["passed"] is False
    assert all("was not measured" in reason for reason in reasons(judged))


def test_a_perplexity_that_is_no_number_fails(healthy: dict[str, Any]) -> None:
    broken = {**healthy["metrics"], "finetuned": {"news_ppl_seq128": None}}
    judged = judge(GateConfig(perplexity_ratio=1e9), {**healthy, "metrics": broken})
    assert [check["value"] for check in judged["checks"]] == [None]
    assert judged["passed"] is False


def test_a_failed_task_fails_the_gate_and_leaves_no_mean(report: dict[str, Any]) -> None:
    judged = judge(GateConfig(mean_retention=0.1, task_retention=0.1), report)
    assert reasons(judged) == [
        "mean retention: no mean, as tasks failed: winogrande; wanted at least 0.100",
        "retention of winogrande: the task failed: no rows; wanted at least 0.100",
    ]


def test_a_name_that_was_not_measured_is_told_with_those_that_were(healthy: dict[str, Any]) -> None:
    judged = judge(GateConfig(task_retention={"piqqa": 0.5}), healthy)
    (reason,) = reasons(judged)
    assert reason.startswith("retention of piqqa: it was not measured (measured: piqa, boolq)")


def test_the_pruned_model_is_judged_where_nothing_was_finetuned(healthy: dict[str, Any]) -> None:
    report = {**healthy, "finetune": {"method": "none"}}
    (check,) = judge(GateConfig(agreement=0.6), report)["checks"]
    assert check["value"] == 0.55


def test_without_a_gate_nothing_is_judged(report: dict[str, Any]) -> None:
    judged = judge(None, report)
    assert judged == {"passed": None, "checks": []}
    assert (state(judged), state(None), brief_reasons(judged)) == ("none", "none", "")


def test_reasons_for_a_tag_are_bounded(healthy: dict[str, Any]) -> None:
    limits = {f"task_{i}": 0.5 for i in range(100)}
    judged = judge(GateConfig(task_retention=limits), healthy)
    assert state(judged) == "failed"
    assert len(brief_reasons(judged)) == REASONS_LENGTH


def test_a_near_miss_is_told_with_all_its_digits(healthy: dict[str, Any]) -> None:
    metrics = {"dense": {"t_ppl_seq8": 1.0}, "finetuned": {"t_ppl_seq8": 1.50001}}
    (reason,) = reasons(
        judge(GateConfig(perplexity_ratio=1.5), {**healthy, "metrics": metrics | {"pruned": {}}})
    )
    assert "is 1.50001; wanted at most 1.500" in reason


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"gate": {}}, "passes everything"),
        ({"gate": {"task_retention": {}}}, "passes everything"),
        ({"gate": {"mean_retention": 0.9}}, "gate.mean_retention needs evaluation.tasks"),
        ({"gate": {"decode_speedup": 1.0}, "speed": False}, "needs evaluation.speed"),
        ({"gate": {"agreement": 0.5}, "behaviour_windows": 0}, "need evaluation.behaviour_windows"),
        ({"gate": {"mean_retention": float("nan")}, "tasks": ["piqa"]}, "finite"),
    ],
)
def test_a_gate_that_can_t_be_judged_is_refused_before_the_run(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        EvaluationConfig(**settings)


def test_settings_of_a_step_are_all_that_its_key_depends_on() -> None:
    whole = EvaluationConfig(gate={"size_ratio": 0.9}, repeats=2, prompt_tokens=8)
    assert whole.only("repeats") == EvaluationConfig(repeats=2)
    assert whole.prompt_tokens == (8,)


def test_the_report_says_first_how_the_gate_went(tmp_path: Path) -> None:
    from adapruner.report.page import page
    from tests.adapruner.report.reports import settings

    stages = write_stages(tmp_path)
    for limit, shown in ((0.79, "Gate failed"), (0.81, "Gate passed")):
        report = build(stages, settings(limits={"size_ratio": limit}), with_tasks=True)
        shown_page = page(report)
        assert shown_page.index(shown) < shown_page.index('class="verdict"')
        assert report["gate"]["passed"] is (limit > 0.8)
