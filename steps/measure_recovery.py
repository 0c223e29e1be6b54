"""Memory of fine-tuning, and size and speed of a model that was tuned in 4 bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import EvaluationConfig, FinetuneConfig, ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def measure_recovery(
    checkpoint: Path,
    dense: Path,
    teacher_logits: Path,
    pool: Path,
    finetuned: Path,
    exports: Path,
    hardware: Path,
    model: ModelConfig,
    config: FinetuneConfig,
    evaluation: EvaluationConfig,
) -> Annotated[Path, "recovery_cost"]:
    """`recovery_cost.json`. `checkpoint` is the pruned one, which was fine-tuned; `dense` is the
    dense one where the method starts from it, else the pruned one. `hardware` is part of the cache
    key. Raises UserError where speed is measured on other hardware."""
    from adapruner.efficiency.latency_table import Hardware, check_same
    from adapruner.recovery import cost
    from adapruner.recovery.finetune import RecoveryRequest

    request = RecoveryRequest(
        checkpoint, dense, teacher_logits, pool, model, config, seed=0, processes=model.processes
    )
    with stage("measure_recovery") as out:
        if evaluation.speed:
            check_same(Hardware.read(hardware), model.device_config)
        cost.measure_recovery(request, finetuned, exports, evaluation).write(out)
    return out
