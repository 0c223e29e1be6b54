"""MLP widths: from the channels to remove to a multiple of `round_to` for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from adapruner.importance.scores import Scores
from adapruner.models.structures import LayerWidths
from adapruner.pruning.allocation import RULES
from adapruner.pruning.allocation.reachability import refuse_ratio
from adapruner.pruning.allocation.request import AllocationRequest
from adapruner.pruning.target import PruningTarget


def mlp_widths(
    scores: Scores,
    target: PruningTarget,
    whole: Sequence[LayerWidths],
    sensitivity: Tensor | None = None,
    width_profile: float = 0.0,
) -> list[int]:
    """Channels that each layer keeps: multiples of `round_to`, as near the ratio as they allow.

    Of experts, each keeps such a multiple. `whole` are the widths of the layers without the heads
    and experts that are removed, and `scores` those of the channels that are left; these make up
    the rest of the budget. Raises UnreachableError when they can't.
    """
    dense = [widths.mlp_channels for widths in whole]
    multiples = [target.pruning.round_to * widths.mlps for widths in whole]
    missing = max(target.budget - _params_removed(target, whole), 0)
    channels = missing / target.structures.channel_params
    most = sum(dense[i] - min(multiples[i], dense[i]) for i in target.prunable)
    if channels > most:
        refuse_ratio(target, missing, most * target.structures.channel_params)
    if target.pruning.layout == "uniform":
        return _uniform_widths(whole, channels, target.pruning.round_to)
    layers = list(target.prunable)
    request = AllocationRequest(
        scores=[scores.mlp[i] for i in layers],
        comparable=scores.comparable,
        channels=channels,
        sensitivity=None if sensitivity is None else sensitivity[layers],
        width_profile=width_profile,
        fluctuation=scores.fluctuation["mlp"][layers] if scores.fluctuation else None,
        keep_unstable=target.pruning.fluctuation == "keep_unstable",
    )
    weights = _rule(request).removal_weights(request)
    steps = [multiples[i] for i in layers]
    kept = _kept_by_layer([dense[i] for i in layers], channels, weights, steps)
    widths = list(dense)
    for i, width in zip(layers, kept, strict=True):
        widths[i] = width
    return widths


def _rule(request: AllocationRequest) -> Any:
    return next(rule for rule in map(import_module, RULES) if rule.applies(request))


def _uniform_widths(whole: Sequence[LayerWidths], channels: float, multiple: int) -> list[int]:
    """Channels of each layer: one width for all experts, and one for all MLPs without any.

    Each kind of layer loses the same share of its channels.
    """
    total = sum(widths.mlp_channels for widths in whole)
    result = [0] * len(whole)
    for is_sparse in (False, True):
        kind = [i for i, widths in enumerate(whole) if bool(widths.experts) == is_sparse]
        sizes = [whole[i].mlp_width for i in kind]
        share = sum(whole[i].mlp_channels for i in kind) / total
        for i in kind:
            own = channels * share / whole[i].mlps
            result[i] = whole[i].mlps * _uniform_width(sizes, own, multiple)
    return result


def _uniform_width(dense: list[int], channels: float, multiple: int) -> int:
    narrowest = min(dense)
    target_width = (sum(dense) - channels) / len(dense)
    possible = [*range(multiple, narrowest + 1, multiple), narrowest]
    return int(min(possible, key=lambda width: abs(width - target_width)))


def _kept_by_layer(
    dense: list[int], channels: float, weights: Tensor, multiples: list[int]
) -> list[int]:
    """Widths that sum to `sum(dense) - channels`, up to half a multiple, removing by `weights`.

    A width is a multiple of the layer's or, of a layer that is left unpruned, the dense width.
    """
    removed = _removed_by_layer(dense, channels, weights, multiples)
    units = [(d - float(r)) / m for d, r, m in zip(dense, removed, multiples, strict=True)]
    whole = [max(int(u), 1) for u in units]
    widths = [min(w * m, d) for w, d, m in zip(whole, dense, multiples, strict=True)]
    spare = sum(dense) - channels - sum(widths)
    for i in sorted(range(len(dense)), key=lambda i: (whole[i] - units[i], i)):
        wider = min(widths[i] + multiples[i], dense[i])
        if 2 * spare > wider - widths[i]:
            spare -= wider - widths[i]
            widths[i] = wider
    return widths


def _removed_by_layer(
    dense: list[int], channels: float, weights: Tensor, multiples: list[int]
) -> Tensor:
    """float64 [n]: channels removed from each layer, which keeps at least one multiple."""
    most = [d - min(m, d) for d, m in zip(dense, multiples, strict=True)]
    limit = torch.tensor(most, dtype=torch.float64)
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


def _params_removed(target: PruningTarget, whole: Sequence[LayerWidths]) -> int:
    size = target.structures.layer_params
    return sum(map(size, target.structures.layers)) - sum(map(size, whole))
