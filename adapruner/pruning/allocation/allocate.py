"""From scores to a plan: how wide each layer stays, and which structures it keeps.

The requested share is removed from the layers that are not protected. With attention among the
structures, the same share of attention is removed in whole units first, and so are whole experts;
channels make up the rest. How they are distributed over the layers is decided by an allocation
rule.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from adapruner.importance.scores import Scores
from adapruner.models.structures import LayerWidths
from adapruner.pruning.allocation.attention import kept_heads
from adapruner.pruning.allocation.experts import kept_channels, kept_experts
from adapruner.pruning.allocation.reachability import check_ratio
from adapruner.pruning.allocation.widths import mlp_widths
from adapruner.pruning.plan import PruningPlan, kept_groups, make_plan
from adapruner.pruning.target import PruningTarget


def allocate(
    scores: Scores,
    target: PruningTarget,
    provenance: dict[str, Any],
    sensitivity: Tensor | None = None,
    width_profile: float = 0.0,
) -> PruningPlan:
    """The plan that keeps the structures with the highest scores at the target's ratio.

    `sensitivity`, float64 [layers, shares], and `width_profile` in [0, 1] shape the widths, see
    `width_profile`. Raises UnreachableError when the ratio can't be reached in the layout, when it
    rounds to nothing, or when the layout is uniform and the layers would differ.
    """
    heads, experts = kept_heads(scores, target), kept_experts(scores, target)
    layers = list(zip(target.structures.layers, heads, experts, strict=True))
    whole = [_whole_units(*layer) for layer in layers]
    of_left = [
        scores.mlp[i].view(dense.mlps, -1)[kept].flatten()
        for i, (dense, _, kept) in enumerate(layers)
    ]
    widths = mlp_widths(replace(scores, mlp=of_left), target, whole, sensitivity, width_profile)
    channels = [
        kept_channels(scores.mlp[i], dense, kept, widths[i])
        for i, (dense, _, kept) in enumerate(layers)
    ]
    keep = list(zip(channels, heads, strict=True))
    plan = make_plan(target, keep, provenance)
    check_ratio(plan, target)
    return plan


def _whole_units(dense: LayerWidths, heads: list[int], experts: list[int]) -> LayerWidths:
    """The widths of a layer that keeps these heads, and all channels of these experts."""
    return LayerWidths(
        mlp_channels=len(experts) * dense.mlp_width,
        query_heads=len(heads),
        kv_groups=len(kept_groups(dense, heads)),
        experts=len(experts) if dense.experts else 0,
    )
