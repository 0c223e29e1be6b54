"""The section Target, and what the header says of targets in memory and latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapruner.pruning.costs.scale import TargetCost
from adapruner.pruning.plan import PruningPlan, Ratio
from adapruner.report.sections.headline import tiles, verdict
from adapruner.report.sections.target import rows, view
from tests.adapruner.report.reports import build, speed, write_stages

MEMORY = TargetCost(
    unit="bytes", tokens=4096, conditions="bfloat16", dense=1_000_000_000, pruned=800_000_000
)
LATENCY = TargetCost(
    unit="ns", tokens=256, phase="prefill", conditions="a CPU", dense=50_000_000, pruned=40_000_000
)


def report_of(root: Path, cost: TargetCost, of: Any) -> dict[str, Any]:
    """A report whose plan has this target, and whose pruned model is 1.25 times as fast."""
    stages = write_stages(root / "stages")
    ratio = Ratio(requested=0.2, of=of, achieved_all=0.3, achieved_blocks=0.4, cost=cost)
    plan = PruningPlan.read(stages["search"]).model_copy(update={"ratio": ratio})
    plan.write(stages["search"])
    settings = ("batch_1_prompt_128", f"batch_1_prompt_{cost.tokens}")
    speed(125.0, settings).write(stages["measure_efficiency"])
    return build(stages)


def test_memory_is_shown_as_planned(tmp_path: Path) -> None:
    report = report_of(tmp_path, MEMORY, "memory")
    assert report["ratio"]["achieved"] == pytest.approx(0.2)
    (row,) = rows(report)
    assert (row.cells[:2], row.change) == (("1.0 GB", "800.0 MB"), "-20.0 %")
    assert "4,096 tokens, bfloat16" in row.note
    assert "20.0 % of the memory of weights and KV cache is saved" in verdict(report)
    (tile,) = [tile for tile in tiles(report) if tile["label"] == "memory"]
    assert tile["value"] == "-20.0 %"


def test_latency_is_shown_as_predicted_and_as_measured(tmp_path: Path) -> None:
    report = report_of(tmp_path, LATENCY, "latency")
    predicted, measured = rows(report)
    assert predicted.cells[:2] == ("50.00", "40.00") and predicted.change == "-20.0 %"
    assert measured.cells[:2] == ("2,560", "2,048") and measured.change == "-20.0 %"
    sentence = verdict(report)
    assert "20.0 % of the time of a forward pass is saved by prediction" in sentence
    assert "20.0 % by measurement" in sentence
    assert len([tile for tile in tiles(report) if tile["label"] == "latency"]) == 2
    facts = dict((view(report) or {})["facts"])
    assert facts["counted"] == "prefill of 256 tokens, batch 1, a CPU"
    assert facts["measured"] == "20.0 % removed"


def test_latency_that_was_not_measured_is_a_prediction(tmp_path: Path) -> None:
    report = report_of(tmp_path, LATENCY, "latency") | {"speed": None}
    assert [row.name for row in rows(report)] == ["latency, predicted, ms"]
    assert "by measurement" not in verdict(report)


def test_parameters_have_no_cost_of_their_own(report: dict[str, Any]) -> None:
    shown = view(report) or {}
    assert rows(report) == [] and shown["facts"] == []
    assert "20.0 % of the decoder blocks' parameters was requested" in shown["lead"]


def test_where_no_structure_is_removed_there_is_no_target(report: dict[str, Any]) -> None:
    plan = report["plan"] | {"layout": "semi_structured"}
    assert view(report | {"plan": plan}) is None
