"""Which experts each layer keeps, and which channels of each."""

from __future__ import annotations

from torch import Tensor

from adapruner.importance.scores import Scores
from adapruner.models.structures import LayerWidths
from adapruner.pruning.allocation.attention import highest
from adapruner.pruning.target import PruningTarget


def kept_experts(scores: Scores, target: PruningTarget) -> list[list[int]]:
    """The experts that each layer keeps; the one MLP of other layers is expert 0.

    With `pruning.experts: whole`, a layer loses as many as the target's share allows, and keeps at
    least those that are chosen for one token. An expert's score is the sum of its channels'.
    """
    target.check_experts()
    structures = target.structures
    experts = [list(range(widths.mlps)) for widths in structures.layers]
    for i in target.prunable if target.pruning.experts == "whole" else ():
        dense = structures.layers[i]
        if dense.experts:
            removed = int(dense.experts * target.share)
            count = max(dense.experts - removed, structures.experts_per_token)
            experts[i] = highest(scores.mlp[i].view(dense.experts, -1).sum(1), count)
    return experts


def kept_channels(
    scores: Tensor, dense: LayerWidths, experts: list[int], channels: int
) -> list[int]:
    """The `channels` channels with the highest `scores` [C] in a layer, equally many per expert.

    The result is ascending, and the indices are among the channels of all experts.
    """
    size = dense.mlp_width
    starts = [expert * size for expert in experts]
    each = channels // len(experts)
    return [start + c for start in starts for c in highest(scores[start : start + size], each)]
