"""Texts to token pools: calibration, objective, fine-tune and test, disjoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from adapruner.config import CalibrationConfig, DeviceConfig, EvaluationConfig, FinetuneConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def filter_calibration_pool(
    texts: Path,
    checkpoint: Path,
    calibration: CalibrationConfig,
    finetune: FinetuneConfig,
    evaluation: EvaluationConfig,
    seed: int,
    writer: DeviceConfig | None = None,
) -> Annotated[Path, "calibration_pool"]:
    """The pool directory, tokenised by the tokenizer of `checkpoint`.

    `writer` says on what the model of `checkpoint` writes the texts of the source `self`.
    """
    from adapruner.data.build_pool import build_pool
    from adapruner.data.self_generated import written
    from adapruner.data.sources import TextSource

    found = json.loads((texts / "texts.json").read_text(encoding="utf-8"))
    named = {given: TextSource.model_validate(fields) for given, fields in found.items()}
    with stage("filter_calibration_pool") as out:
        if writer is not None:
            named = written(named, checkpoint, writer, calibration, seed, out)
        build_pool(named, calibration, finetune, evaluation, checkpoint, seed, out)
    return out
