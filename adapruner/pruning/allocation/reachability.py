"""Checks whether a plan meets the ratio, and raises a one-line error where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import NoReturn

from adapruner.errors import UnreachableError
from adapruner.models.structures import LayerWidths
from adapruner.pruning.plan import PruningPlan, kept_widths
from adapruner.pruning.target import Attention, PruningTarget


def check_ratio(plan: PruningPlan, target: PruningTarget) -> None:
    """Raises UnreachableError when the plan misses the ratio by more than rounding explains, or
    when the layout is uniform and its layers differ."""
    layers = zip(target.structures.layers, plan.layers, strict=True)
    widths = [kept_widths(dense, layer) for dense, layer in layers]
    kept = sorted({astuple(layer)[:3] for layer in widths})
    if target.pruning.layout == "uniform" and not _is_uniform(widths):
        raise UnreachableError(
            f"pruning.layout uniform is not possible: the model's layers differ, and {target} "
            f"would leave them {kept[0]} to {kept[-1]} (channels, query heads, KV groups); "
            "use pruning.layout: per_layer"
        )
    removed = target.removed(widths)
    if not removed:
        raise UnreachableError(
            f"{target} rounds to nothing: widths are multiples of {target.pruning.round_to} "
            f"channels, and at least {_smallest_share(target):.2g} must be removed; raise "
            "pruning.ratio or lower pruning.round_to"
        )
    if abs(removed - target.budget) > _tolerance(target, widths):
        raise UnreachableError(
            f"{target} can't be reached in layout {target.pruning.layout}: the nearest is "
            f"{removed / target.costs.base:.4f}; request that, lower "
            "pruning.round_to, or use another pruning.layout"
        )


def _is_uniform(layers: list[LayerWidths]) -> bool:
    """Whether one config holds them: equal heads, experts and MLPs, where there are any."""
    heads = {(widths.query_heads, widths.kv_groups) for widths in layers}
    mlps = {(widths.experts, widths.mlp_width) for widths in layers}
    return len(heads) == 1 and len(mlps) == len({experts > 0 for experts, _ in mlps})


def refuse_ratio(target: PruningTarget, missing: float, most: float) -> NoReturn:
    """Raises UnreachableError: of the cost `missing`, at most `most` can be removed."""
    pruning = target.pruning
    reachable = pruning.ratio - (missing - most) / target.costs.base
    advice = "lower pruning.ratio"
    if pruning.layout == "per_layer" and pruning.protect_first + pruning.protect_last:
        advice += ", protect fewer layers (protect_first, protect_last)"
    if target.attention == "none":
        advice += ", or prune attention as well (pruning.attention: kv_groups)"
    raise UnreachableError(
        f"{target} can't be reached in layout {pruning.layout}: at most {max(reachable, 0):.3f} "
        f"can be removed; {advice}"
    )


def _tolerance(target: PruningTarget, kept: Sequence[LayerWidths]) -> float:
    """The cost that a plan may differ by: half a width step, and one attention unit a layer."""
    layers, cost = target.structures.layers, target.costs.of_layer
    steps, units = [], 0.0
    for i in target.prunable:
        steps.append(_largest_step(target, i, kept[i]))
        if target.attention != "none":
            units += cost(i, layers[i]) - cost(i, _with_unit_removed(layers[i], target.attention))
    step = sum(steps) if target.pruning.layout == "uniform" else max(steps, default=0)
    return step / 2 + units + 1


def _largest_step(target: PruningTarget, index: int, kept: LayerWidths) -> float:
    """The cost of one more or one less multiple of `round_to`, the larger of the two."""
    step, cost = target.pruning.round_to * kept.mlps, target.costs.of_mlp
    costs = [cost(index, kept.mlp_channels + change) for change in (-step, 0, step)]
    return max(costs[1] - costs[0], costs[2] - costs[1])


def _with_unit_removed(dense: LayerWidths, attention: Attention) -> LayerWidths:
    if attention == "kv_groups":
        heads = dense.query_heads - dense.heads_per_group
        return replace(dense, query_heads=heads, kv_groups=dense.kv_groups - 1)
    return replace(dense, query_heads=dense.query_heads - dense.kv_groups)


def _smallest_share(target: PruningTarget) -> float:
    """The share that one width step removes: of one layer, or in the uniform layout of all."""
    multiple, cost = target.pruning.round_to, target.costs.of_mlp
    steps = []
    for i in target.prunable:
        dense = target.structures.layers[i]
        below = dense.mlps * ((dense.mlp_width - 1) // multiple * multiple)
        if below:
            steps.append(cost(i, dense.mlp_channels) - cost(i, below))
    total = sum(steps) if target.pruning.layout == "uniform" else min(steps, default=0)
    return total / target.costs.base
