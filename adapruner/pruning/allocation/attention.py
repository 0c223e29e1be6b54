"""Which query heads each layer keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from adapruner.importance.scores import Scores
from adapruner.pruning.allocation.fluctuation import by_fluctuation
from adapruner.pruning.target import PruningTarget


def kept_heads(scores: Scores, target: PruningTarget) -> list[list[int]]:
    """The query heads that each layer keeps, the same number in every KV group that is kept."""
    heads = [list(range(widths.query_heads)) for widths in target.structures.layers]
    if target.attention != "none":
        for i, share in zip(target.prunable, _shares(scores, target), strict=True):
            heads[i] = _heads_of_layer(scores, target, i, share)
    return heads


def highest(scores: Tensor, count: int) -> list[int]:
    """The indices of the `count` highest scores, ascending; of equal ones the lower index."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return sorted(int(i) for i in order[:count])


def _shares(scores: Scores, target: PruningTarget) -> list[float]:
    """The share of its attention that each prunable layer loses."""
    if scores.fluctuation is None:
        return [target.share] * len(target.prunable)
    keep_unstable = target.pruning.fluctuation == "keep_unstable"
    of_layers = scores.fluctuation["attention"][list(target.prunable)]
    return [target.share * float(w) for w in by_fluctuation(of_layers, keep_unstable)]


def _heads_of_layer(scores: Scores, target: PruningTarget, i: int, share: float) -> list[int]:
    structures = target.structures
    dense = structures.layers[i]
    by_group = scores.heads[i].view(dense.kv_groups, -1)
    whole_groups = target.attention == "kv_groups"
    units, heads_of_unit = (
        (dense.kv_groups, dense.heads_per_group)
        if whole_groups
        else (dense.heads_per_group, dense.kv_groups)
    )
    # Some stock configs refuse a head count that does not divide the hidden size.
    is_stock = target.pruning.layout == "uniform"
    possible = [
        n for n in range(1, units + 1)
        if not is_stock or n * heads_of_unit in structures.stock_head_counts
    ]  # fmt: skip
    count = min(possible, key=lambda n: (abs(n - units * (1 - share)), -n), default=units)
    if whole_groups:
        kept = highest(by_group.sum(1) + scores.groups[i], count)
        return [g * dense.heads_per_group + h for g in kept for h in range(dense.heads_per_group)]
    best = [highest(group, count) for group in by_group]
    return [g * dense.heads_per_group + h for g, kept in enumerate(best) for h in kept]
