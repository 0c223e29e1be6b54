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
    left = _channels(scores, target, experts, [widths.mlp_channels for widths in whole])
    of_left = [layer[channels] for layer, channels in zip(scores.mlp, left, strict=True)]
    left_scores = replace(scores, mlp=of_left)
    widths = mlp_widths(left_scores, target, whole, sensitivity, width_profile)
    keep = list(zip(_channels(scores, target, experts, widths), heads, strict=True))
    plan = make_plan(target, keep, provenance)
    check_ratio(plan, target)
    return plan


def _channels(
    scores: Scores, target: PruningTarget, experts: list[list[int]], widths: list[int]
) -> list[list[int]]:
    """The best channels of the kept experts of each layer, `widths` in all."""
    layers = zip(scores.mlp, target.structures.layers, experts, widths, strict=True)
    return [kept_channels(*layer) for layer in layers]


def _whole_units(dense: LayerWidths, heads: list[int], experts: list[int]) -> LayerWidths:
    """The widths of a layer that keeps these heads, and all channels of these experts."""
    return LayerWidths(
        mlp_channels=len(experts) * dense.mlp_width,
        query_heads=len(heads),
        kv_groups=len(kept_groups(dense, heads)),
        experts=len(experts) if dense.experts else 0,
    )
