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
    test_texts: Path,
    model: ModelConfig,
    evaluation: EvaluationConfig,
) -> Annotated[Path, "behaviour"]:
    """`behaviour.json`; without fine-tuning it has the pruned model alone."""
    from adapruner.data.pool import TestTexts
    from adapruner.evaluation.behaviour import compare_behaviour as compare
    from adapruner.recovery.finetune import CHECKPOINT
    from adapruner.recovery.results import RecoveryResult

    models = {"pruned": pruned}
    if RecoveryResult.read(finetuned).is_trained:
        models["finetuned"] = finetuned / CHECKPOINT
    texts = TestTexts.read(test_texts).texts
    with stage("compare_behaviour") as out:
        compare(dense, models, texts, model, evaluation).write(out)
    return out
