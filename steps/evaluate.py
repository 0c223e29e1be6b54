"""Perplexity and zero-shot tasks of one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import DeviceConfig, QualityConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def evaluate(
    checkpoint: Path, test_texts: Path, tasks: Path, device: DeviceConfig, quality: QualityConfig
) -> Annotated[Path, "evaluation"]:
    """`evaluation.json` of the checkpoint in `checkpoint` or in its folder `checkpoint`.

    The inputs are all that the results depend on: the checkpoint's origin, the run's seed and the
    split of the texts are not among them, so that a dense model is evaluated once.
    """
    from adapruner.data.pool import TestTexts
    from adapruner.evaluation.quality import evaluate as run_evaluation

    nested = checkpoint / "checkpoint"
    directory = nested if nested.is_dir() else checkpoint
    texts = TestTexts.read(test_texts).texts
    with stage("evaluate") as out:
        run_evaluation(directory, texts, tasks, device, quality, out)
    return out
