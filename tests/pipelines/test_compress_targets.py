"""Targets of latency and of memory through the whole pipeline on real stores."""

from __future__ import annotations

import pytest

from adapruner.efficiency.latency_table import LatencyTable
from adapruner.pruning.plan import PruningPlan
from tests.pipelines import small
from tests.pipelines.small import AFTER_PRUNING, ALWAYS, BEFORE_PRUNING
from tests.pipelines.workplace import Result, Workplace, make_workplace

pytestmark = pytest.mark.slow

CHANNELS = 4096
"""So many that the time of a pass is that of the MLPs."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("project")
    values = small.config(folder)
    values["parameters"]["config"]["pruning"] |= {
        "ratio": 0.3, "ratio_of": "latency", "layout": "per_layer", "context": 64,
        "protect_first": 0, "protect_last": 0,
    }  # fmt: skip
    values["parameters"]["config"]["reconstruction"] = {"method": "none"}
    work = make_workplace(folder, values)
    small.write_checkpoint(folder / "model", seed=0, channels=CHANNELS)
    return work


@pytest.fixture(scope="module")
def first(work: Workplace) -> Result:
    result = work.compress()
    assert result.code == 0, result.err
    return result


def test_a_plan_saves_the_time_and_the_report_measures_it(work: Workplace, first: Result) -> None:
    assert first.ran == ALWAYS | BEFORE_PRUNING | AFTER_PRUNING
    assert "latency:" in first.out + first.err
    table = LatencyTable.read(next(work.home.rglob(LatencyTable.FILE)).parent)
    plan, report = PruningPlan.read(work.results), work.report()
    cost = plan.ratio.cost
    assert cost is not None and cost.dense == round(table.total_ns)
    assert plan.ratio.achieved == pytest.approx(0.3, abs=0.02)
    assert report["ratio"]["achieved"] == plan.ratio.achieved
    assert report["target"]["conditions"] == str(table.hardware)
    assert "batch_1_prompt_64" in report["speed"]["speedup"]
    page = (work.results / "report.html").read_text()
    assert "the time of a forward pass" in page and "latency" in page


def test_the_table_is_reused_for_another_ratio_and_empty_for_memory(
    work: Workplace, first: Result
) -> None:
    result = work.compress("--set", "pruning.ratio=0.2")
    assert result.code == 0, result.err
    assert result.cached >= BEFORE_PRUNING and "search" in result.ran
    result = work.compress("--set", "pruning.ratio_of=memory", "--set", "pruning.context=2000")
    assert result.code == 0, result.err
    assert {"measure_latency", "search"} <= result.ran
    report = work.report()
    assert report["latency"] is None and report["target"]["unit"] == "bytes"
    assert report["ratio"]["achieved"] == pytest.approx(0.3, abs=0.01)
    assert report["target"]["tokens"] == 2000
