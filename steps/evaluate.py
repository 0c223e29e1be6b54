"""Perplexity and zero-shot tasks of one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import DeviceConfig, QualityConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def evaluate(
    checkpoint: Path, texts: Path, tasks: Path, model: DeviceConfig, quality: QualityConfig
) -> Annotated[Path, "metrics"]:
    """What the checkpoint in `checkpoint`, or in a `checkpoint/` folder below it, can do.

    Its inputs are all that the figures depend on: where the checkpoint came from, the run's seed
    and how texts were split are not among them, so a dense model is measured once.
    """
    from adapruner.evaluation import quality as library
    from adapruner.evaluation.tasks import batch_size

    below = checkpoint / "checkpoint"
    with stage("evaluate") as out:
        library.evaluate(
            below if below.is_dir() else checkpoint,
            texts,
            tasks,
            model,
            quality,
            batch_size(tasks),
            out,
        )
    return out
