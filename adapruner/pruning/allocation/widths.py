"""MLP widths: from the cost to remove to a multiple of `round_to` for each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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

BISECTIONS = 40
"""At most; a cost that is linear in the channels needs none."""
EXACT = 1e-6
"""Share of a cost that does not count: far less than any step of a width."""


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
    layers = _layers(target, whole)
    missing = max(target.budget - target.removed(whole), 0)
    reachable = sum(layer.saved(layer.dense - layer.most) for layer in layers)
    if missing > reachable:
        refuse_ratio(target, missing, reachable)
    if target.pruning.layout == "uniform":
        exact = _widths_that_save(missing, layers, partial(_uniform_widths, whole))
        return _round_uniform(whole, exact, target.pruning.round_to)
    dense = [widths.mlp_channels for widths in whole]
    if not missing:
        return dense
    prunable = list(target.prunable)
    request = AllocationRequest(
        scores=[scores.mlp[i] for i in prunable],
        comparable=scores.comparable,
        channels=0.0,
        sensitivity=None if sensitivity is None else sensitivity[prunable],
        width_profile=width_profile,
        fluctuation=scores.fluctuation["mlp"][prunable] if scores.fluctuation else None,
        keep_unstable=target.pruning.fluctuation == "keep_unstable",
    )
    exact = _widths_that_save(missing, layers, partial(_widths_by_layer, layers, request))
    kept = dict(zip(prunable, _round_by_layer(layers, exact, missing), strict=True))
    return [kept.get(i, width) for i, width in enumerate(dense)]


@dataclass(frozen=True)
class _Layer:
    """A layer whose MLP has `dense` channels, of which at most `most` can be removed.

    Its width is a multiple of `multiple`, or the dense one; `cost` is that of a number of channels.
    """

    dense: int
    most: int
    multiple: int
    cost: Callable[[float], float]

    def saved(self, width: float) -> float:
        """The cost that the layer saves at a width."""
        return self.cost(self.dense) - self.cost(width)


def _layers(target: PruningTarget, whole: Sequence[LayerWidths]) -> list[_Layer]:
    """The prunable layers."""
    layers = []
    for i in target.prunable:
        dense, multiple = whole[i].mlp_channels, target.pruning.round_to * whole[i].mlps
        most = dense - min(multiple, dense)
        layers.append(_Layer(dense, most, multiple, partial(target.costs.of_mlp, i)))
    return layers


def _widths_that_save(
    missing: float, layers: Sequence[_Layer], widths_without: Callable[[float], list[float]]
) -> list[float]:
    """The widths without as many channels as save the cost `missing`, not rounded.

    At the mean price of a channel their number is exact where all channels have the same price;
    else it is found by bisection.
    """
    if not missing:
        return widths_without(0.0)
    low, high = 0.0, float(sum(layer.most for layer in layers))
    channels = missing / (sum(layer.saved(layer.dense - layer.most) for layer in layers) / high)
    for _ in range(BISECTIONS):
        widths = widths_without(channels)
        saved = sum(layer.saved(width) for layer, width in zip(layers, widths, strict=True))
        if abs(saved - missing) <= EXACT * missing:
            break
        low, high = (channels, high) if saved < missing else (low, channels)
        channels = (low + high) / 2
    return widths_without(channels)


def _rule(request: AllocationRequest) -> Any:
    return next(rule for rule in map(import_module, RULES) if rule.applies(request))


def _uniform_widths(whole: Sequence[LayerWidths], channels: float) -> list[float]:
    """Channels of each layer: one width for all experts, and one for all MLPs without any.

    Each kind of layer loses the same share of its channels.
    """
    total = sum(widths.mlp_channels for widths in whole)
    result = [0.0] * len(whole)
    for kind in _kinds(whole):
        sizes = [whole[i].mlp_width for i in kind]
        share = sum(whole[i].mlp_channels for i in kind) / total
        for i in kind:
            own = channels * share / whole[i].mlps
            result[i] = whole[i].mlps * ((sum(sizes) - own) / len(sizes))
    return result


def _round_uniform(
    whole: Sequence[LayerWidths], widths: Sequence[float], multiple: int
) -> list[int]:
    """The widths, rounded to a multiple that is no wider than the narrowest layer of its kind."""
    result = [0] * len(whole)
    for kind in _kinds(whole):
        narrowest = min(whole[i].mlp_width for i in kind)
        possible = [*range(multiple, narrowest + 1, multiple), narrowest]
        for i in kind:
            wanted = widths[i] / whole[i].mlps
            nearest = min(possible, key=lambda width: abs(width - wanted))
            result[i] = whole[i].mlps * nearest
    return result


def _kinds(whole: Sequence[LayerWidths]) -> list[list[int]]:
    """The layers without experts, and those with; of the kinds that there are."""
    kinds = (
        [i for i, widths in enumerate(whole) if bool(widths.experts) == is_sparse]
        for is_sparse in (False, True)
    )
    return [kind for kind in kinds if kind]


def _widths_by_layer(
    layers: Sequence[_Layer], request: AllocationRequest, channels: float
) -> list[float]:
    """Widths that lose `channels` in all, by a rule's weights; each keeps at least one multiple."""
    request = replace(request, channels=channels)
    weights = _rule(request).removal_weights(request)
    dense = torch.tensor([layer.dense for layer in layers], dtype=torch.float64)
    limit = torch.tensor([layer.most for layer in layers], dtype=torch.float64)
    shares = weights * dense
    removed = torch.zeros(len(layers), dtype=torch.float64)
    is_open = torch.ones(len(layers), dtype=torch.bool)
    while True:  # each round fixes a layer at its limit and leaves the rest to the others
        rest = channels - removed[~is_open].sum()
        removed[is_open] = rest * shares[is_open] / shares[is_open].sum()
        over = is_open & (removed > limit)
        if not over.any():
            return (dense - removed).tolist()
        removed[over], is_open = limit[over], is_open & ~over


def _round_by_layer(layers: Sequence[_Layer], widths: Sequence[float], missing: float) -> list[int]:
    """The widths as multiples that save the cost `missing`, up to half a step of one layer.

    A width is a multiple of the layer's or, of a layer that is left unpruned, the dense width.
    """
    units = [width / layer.multiple for width, layer in zip(widths, layers, strict=True)]
    whole = [max(int(u), 1) for u in units]
    kept = [min(w * layer.multiple, layer.dense) for w, layer in zip(whole, layers, strict=True)]
    spare = sum(layer.saved(width) for layer, width in zip(layers, kept, strict=True)) - missing
    for i in sorted(range(len(layers)), key=lambda i: (whole[i] - units[i], i)):
        layer, wider = layers[i], min(kept[i] + layers[i].multiple, layers[i].dense)
        step = layer.cost(wider) - layer.cost(kept[i])
        if 2 * spare > step:
            spare -= step
            kept[i] = wider
    return kept
