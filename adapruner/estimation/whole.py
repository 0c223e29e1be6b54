"""Stages that hold whole models in memory: their layers can't be streamed."""

from __future__ import annotations

from typing import NamedTuple

from adapruner.estimation.stages import FLOAT, Workload

GROUPED_BITS = 5
"""Of a weight that is trained in 4 bit, with the steps and minima of its groups."""


class WholeModels(NamedTuple):
    """Bytes of the weights that a stage holds at once, and the setting that avoids it."""

    weights: int
    avoided_by: str


def whole_models(work: Workload) -> dict[str, WholeModels]:
    """The stages of a run that are not streamed; activations and gradients come on top.

    Fine-tuning by several processes is not among them: each holds a part of the model.
    """
    config, dense, pruned = work.config, work.weights, int(work.weights * work.kept)
    is_sharded = config.model.processes > 1 and config.finetune.method == "lora"
    stages = (
        (
            "filter_calibration_pool",
            config.calibration.is_self_generated,
            WholeModels(dense, "calibration.source without self:..."),
        ),
        (
            "measure_latency",
            config.pruning.is_timed,
            WholeModels(dense, "pruning.ratio_of: all"),
        ),
        (
            "search",
            config.search.planner == "gates" or config.pruning.layout == "semi_structured",
            WholeModels(dense, "another method, see `adapruner methods`"),
        ),
        (
            "finetune",
            config.finetune.is_enabled and not is_sharded,
            WholeModels(_trained(work, pruned), "finetune.method: none"),
        ),
        (
            "measure_efficiency",
            config.evaluation.speed,
            WholeModels(dense + pruned, "evaluation.speed: false"),
        ),
    )
    return {name: models for name, is_used, models in stages if is_used}


def _trained(work: Workload, pruned: int) -> int:
    """Bytes of the weights of the model that is fine-tuned."""
    sizes = work.structures
    projections = int(sizes.block_params * work.kept)
    others = work.item * (sizes.total_params - sizes.block_params)
    trained = {
        "ast": FLOAT * sizes.total_params,
        "grouped": projections * GROUPED_BITS // 8 + others,
    }
    return trained.get(work.config.finetune.method, pruned)
