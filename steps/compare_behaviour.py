"""What the cut models say beside the dense one, and how often they would say the same."""

from __future__ import annotations

import json
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
    """`behaviour.json`; the fine-tuned model is left out where nothing was fine-tuned."""
    from adapruner.evaluation import behaviour

    models = {"pruned": pruned}
    healed = json.loads((finetuned / "summary.json").read_text(encoding="utf-8"))
    if healed["method"] != "none":
        models["finetuned"] = finetuned / "checkpoint"
    with stage("compare_behaviour") as out:
        behaviour.compare(dense, models, texts, model, evaluation, out)
    return out
