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
    teacher: Path,
    pool: Path,
    model: ModelConfig,
    finetune: FinetuneConfig,
    seed: int,
) -> Annotated[Path, "finetuned"]:
    """The folder `checkpoint` and `recovery.json`."""
    from adapruner.recovery import finetune as library

    request = library.RecoveryRequest(checkpoint, teacher, pool, model, finetune, seed)
    with stage("finetune") as out:
        library.finetune(request, out)
    return out
