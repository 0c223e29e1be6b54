"""The calibration pool: disjoint splits for calibration, objective, fine-tuning and test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import CalibrationConfig, DeviceConfig, EvaluationConfig, FinetuneConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.materializer import WithoutWeights, whole
from steps.zenml_support.workspace import fetched, stage


@cached_step
def filter_calibration_pool(
    texts: Path,
    checkpoint: WithoutWeights,
    calibration: CalibrationConfig,
    finetune: FinetuneConfig,
    evaluation: EvaluationConfig,
    seed: int,
    generator: DeviceConfig | None = None,
) -> Annotated[Path, "calibration_pool"]:
    """The pool of the sources in `texts`, tokenised by the tokenizer of `checkpoint`.

    `generator` is the device on which `checkpoint` generates the texts of the sources `self` and
    `self:chat`; None where there is no such source.
    """
    from adapruner.data.build_pool import PoolSettings, build_pool
    from adapruner.data.texts.self_generated import with_generated_texts
    from adapruner.data.texts.sources import TextSources, with_files

    sources = with_files(TextSources.read(texts).sources, fetched())
    with stage("filter_calibration_pool") as out:
        if generator is not None:
            sources = with_generated_texts(
                sources, whole(checkpoint), generator, calibration, seed, out
            )
        settings = PoolSettings(calibration, finetune, evaluation, seed)
        build_pool(sources, settings, checkpoint, out)
    return out
