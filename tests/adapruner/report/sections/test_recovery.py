"""Recovery: method and losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.efficiency.results import PeakMemory
from adapruner.recovery.cost_result import RecoveryCost
from adapruner.recovery.results import RecoveryResult
from adapruner.report.page import page
from adapruner.report.sections.recovery import loss_chart, view
from tests.adapruner.report.reports import build, pool_summary, recovery, settings, speed


def test_losses_on_held_out_text_are_marked(report: dict[str, Any]) -> None:
    values = view(report)
    assert values["has_held_out"] and values["steps"] == 20
    assert "step 5: 3.118 on held-out text" in values["chart"]


def test_curve_without_held_out_losses_has_a_chart() -> None:
    curve = [{"step": step, "loss": 3.0 / step, "held_out": None} for step in (1, 2, 3)]
    chart = loss_chart(curve)
    assert chart is not None and "held-out" not in chart


def test_a_curve_of_one_step_has_no_chart(stages: dict[str, Path]) -> None:
    recovery(steps=1).write(stages["finetune"])
    assert view(build(stages))["chart"] is None


def test_page_shows_the_examples_of_each_domain(stages: dict[str, Path]) -> None:
    pool_summary().write(stages["filter_calibration_pool"])
    by_domain = {"examples_by_domain": (30, 10)}
    recovery().model_copy(update=by_domain).write(stages["finetune"])
    report = build(stages)
    names = [domain.name for domain in pool_summary().domains]
    assert report["recovery"]["examples_by_domain"] == dict(zip(names, (30, 10), strict=True))
    assert [bar["value"] for bar in view(report)["domains"]] == [30, 10]
    assert "Examples of each domain" in page(report)


def test_page_shows_what_a_tuning_in_4_bit_costs_and_gains(stages: dict[str, Path]) -> None:
    speeds = [next(iter(speed(rate).pruned.values())) for rate in (100.0, 150.0)]
    memory = PeakMemory(peak_bytes=900 * 10**6, libraries_bytes=500 * 10**6, of="process")
    RecoveryCost(memory=memory, bytes_4bit=12_345_678, speed=speeds[0], speed_4bit=speeds[1]).write(
        stages["measure_recovery"]
    )
    report = build(stages, settings(method="grouped"))
    facts = dict(view(report)["facts"])
    assert facts["peak memory of the tuning"] == "400.0 MB beyond the 500.0 MB of the libraries"
    assert facts["weights"].endswith("in 4 bit 12.3 MB as GGUF")
    assert "int4 weights in torchao" in facts["decode"]
    assert all(text in page(report) for text in ("400.0 MB", "12.3 MB as GGUF"))


def test_a_report_from_before_the_costs_has_no_facts(report: dict[str, Any]) -> None:
    assert view(report)["facts"] == []


def test_run_without_fine_tuning_says_so(stages: dict[str, Path]) -> None:
    RecoveryResult(method="none").write(stages["finetune"])
    report = build(stages, settings(method="none"))
    assert report["recovery"]["method"] == "none"
    assert "the pruned model is the result" in page(report)
