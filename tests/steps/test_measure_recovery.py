from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from adapruner.config import EvaluationConfig, ExportConfig
from adapruner.efficiency.latency_table import describe_hardware
from adapruner.models.groups import GROUPS_FILE
from adapruner.recovery.cost_result import RecoveryCost
from adapruner.recovery.finetune import CHECKPOINT
from adapruner.recovery.grouped import write_merged
from steps.export import export
from steps.measure_recovery import measure_recovery
from tests.adapruner.conftest import Workplace
from tests.adapruner.export.checkpoints import small, write
from tests.adapruner.recovery.requests import settings
from tests.adapruner.recovery.test_grouped import tuned

MEASURED = EvaluationConfig(prompt_tokens=(8,), batch_sizes=(1,), new_tokens=2, repeats=1)


@pytest.mark.parametrize("method", ["lora", "grouped", "none"])
def test_memory_of_the_tuning_is_measured_in_its_own_process(
    method: str, workplace: Workplace, stages_folder: Path
) -> None:
    empty = stages_folder / "empty"
    empty.mkdir()
    config = settings(method=method, steps=2)
    describe_hardware(workplace.model).write(stages_folder)
    out = measure_recovery.entrypoint(
        workplace.checkpoint,
        workplace.checkpoint,
        empty,
        workplace.pool,
        empty,
        empty,
        stages_folder,
        workplace.model,
        config,
        MEASURED,
    )
    memory = RecoveryCost.read(out).memory
    if method == "none":
        assert memory is None
    else:
        assert memory is not None and memory.peak_bytes > memory.libraries_bytes > 50 * 2**20


def test_size_and_speed_in_4_bit_are_those_of_a_model_that_was_tuned_so(
    workplace: Workplace, stages_folder: Path
) -> None:
    dense, finetuned = stages_folder / "dense", stages_folder / "finetuned"
    write(small("llama", intermediate_size=64), dense)
    (finetuned / CHECKPOINT).mkdir(parents=True)
    write_merged(tuned(dense), dense, finetuned / CHECKPOINT)
    assert (finetuned / GROUPS_FILE).is_file()
    exports = export.entrypoint(finetuned, ExportConfig(to=("gguf",), type="q4_1"))
    config, evaluation = settings(method="grouped"), MEASURED.only("prompt_tokens", "new_tokens")
    evaluation = evaluation.model_copy(update={"repeats": 1, "peak_memory": False})
    model, pool = workplace.model, workplace.pool
    describe_hardware(model).write(stages_folder)
    out = measure_recovery.entrypoint(
        dense, dense, dense, pool, finetuned, exports, stages_folder, model, config, evaluation
    )
    cost = RecoveryCost.read(out)
    assert cost.memory is None
    assert cost.bytes_4bit == (exports / "model-q4_1.gguf").stat().st_size
    try:
        import_module("torchao")
    except ImportError:
        assert cost.speed is None and cost.speed_4bit is None
    else:
        assert cost.speed is not None and cost.speed_4bit is not None
