"""From scores to a plan: how wide each layer stays, and which structures it keeps.

The requested share is removed from the layers that are not protected. With attention among the
structures, the same share of attention is removed in whole units first, and the MLPs make up the
rest. How the MLP channels are distributed over the layers is decided by an allocation rule.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from adapruner.importance.scores import Scores
from adapruner.pruning.allocation.attention import highest, kept_heads
from adapruner.pruning.allocation.reachability import check_ratio
from adapruner.pruning.allocation.widths import mlp_widths
from adapruner.pruning.plan import PruningPlan, make_plan
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
    heads = kept_heads(scores, target)
    widths = mlp_widths(scores, target, heads, sensitivity, width_profile)
    layers = range(len(target.structures.layers))
    keep = [(highest(scores.mlp[i], widths[i]), heads[i]) for i in layers]
    plan = make_plan(target, keep, provenance)
    check_ratio(plan, target)
    return plan
