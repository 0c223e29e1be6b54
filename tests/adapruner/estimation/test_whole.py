"""Which stages hold whole models, and what their weights need at least."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapruner.estimation.stages import measure_recovery
from adapruner.estimation.whole import whole_models
from adapruner.estimation.workload import Workload
from tests.adapruner.estimation.test_stages import workload

NEITHER: dict[str, Any] = {"finetune": {"method": "none"}, "evaluation": {"speed": False}}


def test_a_run_that_is_streamed_as_a_whole_has_none() -> None:
    assert whole_models(workload(**NEITHER)) == {}


@pytest.mark.parametrize(
    ("stages", "changes"),
    [
        ({"finetune"}, {"finetune": {}}),
        ({"finetune"}, {"finetune": {"method": "grouped"}}),
        ({"measure_efficiency"}, {"evaluation": {}}),
        (
            {"finetune", "measure_efficiency", "measure_recovery"},
            {"finetune": {}, "evaluation": {}},
        ),
        ({"filter_calibration_pool"}, {"calibration": {"source": ["a", "self"]}}),
        ({"measure_latency"}, {"pruning": {"ratio_of": "latency"}}),
        ({"search"}, {"search": {"planner": "gates"}}),
        (
            {"search", "prune"},
            {
                "pruning": {"layout": "semi_structured", "ratio": 0.5},
                "search": {"planner": "semi_structured", "metric": "magnitude"},
                "reconstruction": {"method": "none"},
            },
        ),
    ],
)
def test_stages_that_are_not_streamed(stages: set[str], changes: dict[str, Any]) -> None:
    work = workload(**NEITHER | changes)
    whole = whole_models(work)
    assert set(whole) == stages
    for models in whole.values():
        assert 0 < models.weights <= 2 * work.weights


def test_a_model_in_four_bit_and_a_part_of_one_need_less() -> None:
    lora, grouped = (workload(finetune={"method": method}) for method in ("lora", "grouped"))
    whole, *others = (
        whole_models(work)["finetune"].weights for work in (lora, grouped, in_processes(lora))
    )
    assert max(others) < whole


def test_adapters_of_experts_are_trained_in_one_process() -> None:
    work = workload("qwen3-moe", finetune={})
    assert whole_models(in_processes(work))["finetune"] == whole_models(work)["finetune"]


def test_memory_of_several_processes_is_not_measured() -> None:
    lora, grouped = (workload(finetune={"method": method}) for method in ("lora", "grouped"))
    assert "measure_recovery" not in whole_models(in_processes(lora))
    assert measure_recovery(in_processes(lora)) == (0, 0, 0)
    assert measure_recovery(in_processes(grouped)).memory > 0


def in_processes(work: Workload) -> Workload:
    """The same run with four processes."""
    settings = work.config.model.model_copy(update={"processes": 4})
    return replace(work, config=work.config.model_copy(update={"model": settings}))
