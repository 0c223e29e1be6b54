"""What pruning lost, won back: LoRA on the fine-tune split, merged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import FinetuneConfig, ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def finetune(
    checkpoint: Path,
    expected: Path,
    pool: Path,
    model: ModelConfig,
    finetune: FinetuneConfig,
    seed: int,
) -> Annotated[Path, "finetuned"]:
    """`checkpoint/` and the loss curve."""
    from adapruner.recovery import lora as library

    with stage("finetune") as out:
        library.finetune(checkpoint, expected, pool, model, finetune, seed, out)
    return out
