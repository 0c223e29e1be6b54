"""Planner `gates`: a plan by gates that are trained under the budget, without scores or trials.

In the layout residual_subsets there are gates on the residual dimensions that each block reads and
writes and on the MLP channels of every layer; in the layout per_layer on the MLP channels of the
layers that are not protected alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from adapruner.config import PlanConfig
from adapruner.data.pool import Pool
from adapruner.evaluation.perplexity import perplexity
from adapruner.hashing import hash_json
from adapruner.models.residual import SUBSETS
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import LayerWidths
from adapruner.pruning.allocation.reachability import check_ratio
from adapruner.pruning.masks import CHANNELS
from adapruner.pruning.plan import (
    LayerPlan,
    PruningPlan,
    ResidualPlan,
    format_ranges,
    plan_of_layers,
)
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.target import PruningTarget
from adapruner.search.gates.hypernetwork import Sizes
from adapruner.search.gates.selection import Kept, select
from adapruner.search.gates.training import Budget, TrainedGates, train_gates
from adapruner.search.inputs import SearchInputs
from adapruner.search.results import write_single_plan
from adapruner.search.trials.task import gram_matrices

METHOD = "gates"


def search(inputs: SearchInputs, config: PlanConfig, storage: str, out: Path) -> None:
    """Writes what a search writes, with one trial, updated as the settings say.

    `storage` is not used: there is no study. Raises UserError where the model can't have the
    layout, before it is loaded, and UnreachableError where the ratio can't be reached.
    """
    target = PruningTarget(ckpt.inspect(inputs.checkpoint), config.pruning)
    target.check_layout()
    pool = Pool.read(inputs.pool)
    grams = gram_matrices(inputs, config.reconstruction)
    model = ckpt.load_model(inputs.checkpoint, config.model)
    start = time.perf_counter()
    budget = budget_of(target)
    settings = config.search.gates
    trained = train_gates(model, pool.update, gates_of(target), budget, settings, config.seed)
    kept = select(trained.logits, budget, target)
    provenance = {
        "method": METHOD,
        "seed": config.seed,
        "update_sha256": hash_json(pool.update.tolist()),
        "objective_sha256": hash_json(pool.objective.tolist()),
        "gates": settings.model_dump(mode="json") | _summary(trained),
    }
    plan = plan_of_gates(target, kept, provenance)
    plan_s = time.perf_counter() - start
    dense = perplexity(model, pool.objective)
    start = time.perf_counter()
    with narrowed(model, plan, grams.updated_projections(model, plan) if grams else {}):
        pruned = perplexity(model, pool.objective)
    seconds = {"plan_s": plan_s, "total_s": plan_s + time.perf_counter() - start}
    write_single_plan(out, plan, METHOD, (dense, pruned), pool.objective.numel(), seconds)


def gates_of(target: PruningTarget) -> list[Sizes]:
    """The gates of each layer; none in a protected one."""
    hidden, has_subsets = target.structures.hidden_size, target.has_subsets
    subsets = dict.fromkeys(SUBSETS, hidden) if has_subsets else {}
    return [
        subsets | {CHANNELS: widths.mlp_channels} if index in target.prunable else {}
        for index, widths in enumerate(target.structures.layers)
    ]


def budget_of(target: PruningTarget) -> Budget:
    """What the projections may keep, so that the requested share of the parameters is removed."""
    whole = Budget(target.structures, kept=0)
    total = sum(whole.layer_params(widths, {}) for widths in target.structures.layers)
    return Budget(target.structures, kept=total - target.budget)


def plan_of_gates(target: PruningTarget, kept: Kept, provenance: dict[str, Any]) -> PruningPlan:
    """The plan that keeps all heads, and what the open gates keep."""
    layers = zip(target.structures.layers, kept, strict=True)
    plan = plan_of_layers(
        target, tuple(_layer_plan(dense, own, target) for dense, own in layers), provenance
    )
    if not target.has_subsets:
        check_ratio(plan, target)
    return plan


def _layer_plan(dense: LayerWidths, kept: dict[str, list[int]], target: PruningTarget) -> LayerPlan:
    ranges = {kind: format_ranges(indices) for kind, indices in kept.items()}
    channels = ranges.pop(CHANNELS, format_ranges(range(dense.mlp_channels)))
    return LayerPlan(
        mlp_channels=channels,
        query_heads=format_ranges(range(dense.query_heads)),
        residual=ResidualPlan(size=target.structures.hidden_size, **ranges) if ranges else None,
    )


def _summary(trained: TrainedGates) -> dict[str, float]:
    """Means over the first and the last tenth of the steps, of the loss and of P / P*."""
    tenth = max(len(trained.losses) // 10, 1)

    def mean(values: list[float]) -> float:
        return round(sum(values) / len(values), 4)

    return {
        "first_loss": mean(trained.losses[:tenth]),
        "last_loss": mean(trained.losses[-tenth:]),
        "last_params": mean(trained.ratios[-tenth:]),
    }
