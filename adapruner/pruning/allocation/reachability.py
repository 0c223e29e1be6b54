"""Checks whether a plan meets the ratio, and raises a one-line error where it does not."""

from __future__ import annotations

from dataclasses import astuple
from typing import NoReturn

from adapruner.errors import UnreachableError
from adapruner.models.structures import LayerWidths
from adapruner.pruning.plan import PruningPlan, kept_widths
from adapruner.pruning.target import PruningTarget


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
    removed = plan.params.dense - plan.params.pruned
    if not removed:
        raise UnreachableError(
            f"{target} rounds to nothing: widths are multiples of {target.pruning.round_to} "
            f"channels, and at least {_smallest_share(target):.2g} must be removed; raise "
            "pruning.ratio or lower pruning.round_to"
        )
    if abs(removed - target.budget) > _tolerance(target):
        raise UnreachableError(
            f"{target} can't be reached in layout {target.pruning.layout}: the nearest is "
            f"{removed / target.base:.4f}; request that, lower pruning.round_to, or use another "
            "pruning.layout"
        )


def _is_uniform(layers: list[LayerWidths]) -> bool:
    """Whether one config holds them: equal heads, experts and MLPs, where there are any."""
    heads = {(widths.query_heads, widths.kv_groups) for widths in layers}
    mlps = {(widths.experts, widths.mlp_width) for widths in layers}
    return len(heads) == 1 and len(mlps) == len({experts > 0 for experts, _ in mlps})


def refuse_ratio(target: PruningTarget, missing: int, most: int) -> NoReturn:
    """Raises UnreachableError: of `missing` parameters, at most `most` can be removed."""
    pruning = target.pruning
    reachable = pruning.ratio - (missing - most) / target.base
    advice = "lower pruning.ratio"
    if pruning.layout == "per_layer" and pruning.protect_first + pruning.protect_last:
        advice += ", protect fewer layers (protect_first, protect_last)"
    if target.attention == "none":
        advice += ", or prune attention as well (pruning.attention: kv_groups)"
    raise UnreachableError(
        f"{target} can't be reached in layout {pruning.layout}: at most {max(reachable, 0):.3f} "
        f"can be removed; {advice}"
    )


def _tolerance(target: PruningTarget) -> float:
    """Parameters that a plan may differ by: half a width step, and one attention unit a layer."""
    structures, uniform = target.structures, target.pruning.layout == "uniform"
    steps = [target.pruning.round_to * structures.layers[i].mlps for i in target.prunable]
    channels, units = sum(steps) if uniform else max(steps, default=0), 0
    for widths in (structures.layers[i] for i in target.prunable if target.attention != "none"):
        group = widths.heads_per_group * structures.head_params + structures.group_params
        heads = widths.kv_groups * structures.head_params
        units += group if target.attention == "kv_groups" else heads
    return channels * structures.channel_params / 2 + units + 1


def _smallest_share(target: PruningTarget) -> float:
    """The share that one width step removes: of one layer, or in the uniform layout of all."""
    multiple = target.pruning.round_to
    dense = [target.structures.layers[i] for i in target.prunable]
    steps = [
        widths.mlps * (widths.mlp_width - (widths.mlp_width - 1) // multiple * multiple)
        for widths in dense
        if widths.mlp_width > multiple
    ]
    channels = sum(steps) if target.pruning.layout == "uniform" else min(steps, default=0)
    return channels * target.structures.channel_params / target.base
