"""Perplexity and zero-shot tasks of one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import DeviceConfig, QualityConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def evaluate(
    checkpoint: Path, texts: Path, tasks: Path, device: DeviceConfig, quality: QualityConfig
) -> Annotated[Path, "evaluation"]:
    """The quality of the checkpoint in `checkpoint`, or in its folder `checkpoint`.

    Its inputs are all that the results depend on: the checkpoint's origin, the run's seed and the
    split of the texts are not among them, so that a dense model is evaluated once.
    """
    from adapruner.data.pool import TestTexts
    from adapruner.evaluation import quality as library

    below = checkpoint / "checkpoint"
    directory = below if below.is_dir() else checkpoint
    with stage("evaluate") as out:
        library.evaluate(directory, TestTexts.read(texts).texts, tasks, device, quality, out)
    return out
