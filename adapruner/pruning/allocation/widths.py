"""MLP widths: from the channels to remove to a multiple of `round_to` for each layer."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from adapruner.importance.scores import Scores
from adapruner.models.structures import LayerWidths
from adapruner.pruning.allocation import RULES
from adapruner.pruning.allocation.reachability import refuse_ratio
from adapruner.pruning.allocation.request import AllocationRequest
from adapruner.pruning.plan import kept_groups
from adapruner.pruning.target import PruningTarget


def mlp_widths(
    scores: Scores,
    target: PruningTarget,
    heads: list[list[int]],
    sensitivity: Tensor | None = None,
    width_profile: float = 0.0,
) -> list[int]:
    """Channels that each layer keeps: multiples of `round_to`, as near the ratio as they allow.

    `heads` are the query heads that each layer keeps; the MLPs make up the rest of the budget.
    Raises UnreachableError when the MLPs can't.
    """
    multiple = target.pruning.round_to
    dense = [widths.mlp_channels for widths in target.structures.layers]
    missing = max(target.budget - _attention_params_removed(target, heads), 0)
    channels = missing / target.structures.channel_params
    most = sum(dense[i] - min(multiple, dense[i]) for i in target.prunable)
    if channels > most:
        refuse_ratio(target, missing, most * target.structures.channel_params)
    if target.pruning.layout == "uniform":
        return [_uniform_width(dense, channels, multiple)] * len(dense)
    layers = list(target.prunable)
    request = AllocationRequest(
        scores=[scores.mlp[i] for i in layers],
        comparable=scores.comparable,
        channels=channels,
        sensitivity=None if sensitivity is None else sensitivity[layers],
        width_profile=width_profile,
    )
    weights = _rule(request).removal_weights(request)
    kept = _kept_by_layer([dense[i] for i in layers], channels, weights, multiple)
    widths = list(dense)
    for i, width in zip(layers, kept, strict=True):
        widths[i] = width
    return widths


def _rule(request: AllocationRequest) -> Any:
    return next(rule for rule in map(import_module, RULES) if rule.applies(request))


def _uniform_width(dense: list[int], channels: float, multiple: int) -> int:
    narrowest = min(dense)
    target_width = (sum(dense) - channels) / len(dense)
    possible = [*range(multiple, narrowest + 1, multiple), narrowest]
    return int(min(possible, key=lambda width: abs(width - target_width)))


def _kept_by_layer(dense: list[int], channels: float, weights: Tensor, multiple: int) -> list[int]:
    """Widths that sum to `sum(dense) - channels`, up to half a multiple, removing by `weights`.

    A width is a multiple or, of a layer that is left unpruned, the dense width.
    """
    removed = _removed_by_layer(dense, channels, weights, multiple)
    units = [(d - float(r)) / multiple for d, r in zip(dense, removed, strict=True)]
    whole = [max(int(u), 1) for u in units]
    widths = [min(w * multiple, d) for w, d in zip(whole, dense, strict=True)]
    spare = sum(dense) - channels - sum(widths)
    for i in sorted(range(len(dense)), key=lambda i: (whole[i] - units[i], i)):
        wider = min(widths[i] + multiple, dense[i])
        if 2 * spare > wider - widths[i]:
            spare -= wider - widths[i]
            widths[i] = wider
    return widths


def _removed_by_layer(dense: list[int], channels: float, weights: Tensor, multiple: int) -> Tensor:
    """float64 [n]: channels removed from each layer, which keeps at least one multiple."""
    limit = torch.tensor([d - min(multiple, d) for d in dense], dtype=torch.float64)
    shares = weights * torch.tensor(dense, dtype=torch.float64)
    removed = torch.zeros(len(dense), dtype=torch.float64)
    is_open = torch.ones(len(dense), dtype=torch.bool)
    while True:  # each round fixes a layer at its limit and leaves the rest to the others
        rest = channels - removed[~is_open].sum()
        removed[is_open] = rest * shares[is_open] / shares[is_open].sum()
        over = is_open & (removed > limit)
        if not over.any():
            return removed
        removed[over], is_open = limit[over], is_open & ~over


def _attention_params_removed(target: PruningTarget, heads: list[list[int]]) -> int:
    structures, removed = target.structures, 0
    for dense, kept in zip(structures.layers, heads, strict=True):
        narrow = LayerWidths(dense.mlp_channels, len(kept), len(kept_groups(dense, kept)))
        removed += structures.layer_params(dense) - structures.layer_params(narrow)
    return removed
