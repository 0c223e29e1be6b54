"""Continuations and next-token agreement of the pruned and fine-tuned models with the dense one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import EvaluationConfig, ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def compare_behaviour(
    dense: Path,
    pruned: Path,
    finetuned: Path,
    texts: Path,
    model: ModelConfig,
    evaluation: EvaluationConfig,
) -> Annotated[Path, "behaviour"]:
    """`behaviour.json`, without a fine-tuned model where nothing was fine-tuned."""
    from adapruner.data.pool import TestTexts
    from adapruner.evaluation import behaviour
    from adapruner.recovery.finetune import CHECKPOINT, RecoveryResult

    models = {"pruned": pruned}
    if RecoveryResult.read(finetuned).is_trained:
        models["finetuned"] = finetuned / CHECKPOINT
    with stage("compare_behaviour") as out:
        test_texts = TestTexts.read(texts).texts
        behaviour.compare_behaviour(dense, models, test_texts, model, evaluation).write(out)
    return out
