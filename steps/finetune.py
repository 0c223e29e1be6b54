"""Recovery of the pruned model by fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import FinetuneConfig, ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def finetune(
    checkpoint: Path,
    dense: Path,
    teacher_logits: Path,
    pool: Path,
    model: ModelConfig,
    config: FinetuneConfig,
    seed: int,
) -> Annotated[Path, "finetuned"]:
    """The recovered checkpoint in the folder `checkpoint`, and `recovery.json`.

    `dense` is the dense checkpoint where the method starts from it, else the pruned one.
    """
    from adapruner.recovery import finetune as recovery

    request = recovery.RecoveryRequest(
        checkpoint, dense, teacher_logits, pool, model, config, seed, model.processes
    )
    with stage("finetune") as out:
        recovery.finetune(request, out)
    return out
