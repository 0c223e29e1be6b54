from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import EvaluationConfig
from adapruner.efficiency.latency_table import Hardware, describe_hardware
from adapruner.efficiency.results import Cost, Speed
from adapruner.errors import UserError
from steps.measure_efficiency import measure_efficiency
from tests.adapruner.conftest import Workplace


@pytest.mark.parametrize("is_on", [True, False])
def test_cost_is_always_measured_and_speed_only_where_it_is_switched_on(
    workplace: Workplace, stages_folder: Path, is_on: bool
) -> None:
    config = EvaluationConfig(
        speed=is_on, prompt_tokens=[8], new_tokens=2, repeats=1, peak_memory=False
    )
    dense = workplace.checkpoint
    describe_hardware(workplace.model).write(stages_folder)
    out = measure_efficiency.entrypoint(dense, dense, stages_folder, workplace.model, config)
    cost = Cost.read(out)
    assert cost.dense.params == cost.pruned.params > 0
    assert Speed.exists(out) == is_on


def test_speed_on_other_hardware_than_the_cache_key_names_is_refused(
    workplace: Workplace, stages_folder: Path
) -> None:
    here = describe_hardware(workplace.model)
    Hardware(**{**here.model_dump(), "processor": "other"}).write(stages_folder)
    dense, model = workplace.checkpoint, workplace.model
    with pytest.raises(UserError, match="other"):
        measure_efficiency.entrypoint(dense, dense, stages_folder, model, EvaluationConfig())
