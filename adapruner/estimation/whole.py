"""Stages that hold whole models in memory: their layers can't be streamed."""

from __future__ import annotations

from typing import NamedTuple

from adapruner.config.pruning import SEMI_STRUCTURED
from adapruner.estimation.workload import Workload
from adapruner.models.activations import FLOAT

GROUPED_BITS = 5
"""Of a weight that is trained in 4 bit, with the steps and minima of its groups."""

OTHER_LAYOUT = f"another pruning.layout than {SEMI_STRUCTURED}"


class WholeModels(NamedTuple):
    """Bytes of weights that a stage needs at least, and the setting that leaves it out."""

    weights: int
    left_out_by: str


def whole_models(work: Workload) -> dict[str, WholeModels]:
    """The stages of a run that are not streamed; activations and gradients come on top."""
    config, dense = work.config, work.weights
    is_masked = config.pruning.layout == SEMI_STRUCTURED
    stages = (
        (
            "filter_calibration_pool",
            config.calibration.is_self_generated,
            WholeModels(dense, "a calibration.source other than self and self:chat"),
        ),
        (
            "measure_latency",
            config.pruning.is_timed,
            WholeModels(dense, "another pruning.ratio_of than latency"),
        ),
        (
            "search",
            config.search.planner == "gates" or is_masked,
            WholeModels(dense, OTHER_LAYOUT if is_masked else "another search.planner than gates"),
        ),
        ("prune", is_masked, WholeModels(dense, OTHER_LAYOUT)),
        (
            "finetune",
            config.finetune.is_enabled,
            WholeModels(_trained(work, is_masked), "finetune.method: none"),
        ),
        (
            "measure_efficiency",
            config.evaluation.speed,
            WholeModels(2 * dense if is_masked else work.both_models, "evaluation.speed: false"),
        ),
        (
            "measure_recovery",
            work.is_recovery_measured,
            WholeModels(_trained(work, is_masked), "evaluation.peak_memory: false"),
        ),
    )
    return {name: models for name, is_used, models in stages if is_used}


def _trained(work: Workload, is_masked: bool) -> int:
    """Bytes of the weights of the model that is fine-tuned.

    Of several processes it is the part of one: they may be on as many GPUs. Adapters of experts are
    trained in one process.
    """
    sizes, finetune = work.structures, work.config.finetune
    kept = 1.0 if is_masked else work.kept
    projections, others = int(sizes.block_params * kept), sizes.total_params - sizes.block_params
    if finetune.method == "ast":
        return FLOAT * sizes.total_params
    if finetune.method == "grouped":
        return projections * GROUPED_BITS // 8 + work.item * others
    processes = 1 if sizes.has_experts else work.config.model.processes
    return work.item * (projections // processes + others)
