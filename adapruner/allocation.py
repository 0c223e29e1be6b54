"""From scores to a plan: how wide each layer stays, and which structures it keeps.

The requested share is removed from the layers that are not protected. With attention among the
structures, the same share of attention is removed in whole units first and the MLPs make up the
rest. Layer l keeps the share 1 - f * s_l^-e / mean(s^-e) of its channels, where s_l is the layer's
sensitivity, e the recipe's width exponent and f what the ratio asks for; e = 0 gives every layer
the same share.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.plan import PruningPlan, kept_groups, make_plan
from adapruner.scoring import Scores
from adapruner.structures import LayerWidths, Structures

Attention = Literal["none", "kv_groups", "query_heads"]


def allocate(
    scores: Scores,
    structures: Structures,
    pruning: PruningConfig,
    exponent: float,
    provenance: dict[str, Any],
) -> PruningPlan:
    """The plan that keeps the best structures by `scores` at the ratio of `pruning`.

    Raises UserError when the ratio can't be reached in the layout.
    """
    protected = protected_layers(structures, pruning)
    heads = kept_heads(scores, structures, pruning)
    widths = mlp_widths(scores.sensitivity, structures, pruning, heads, exponent)
    keep = [(_best(scores.mlp[i], widths[i]), heads[i]) for i in range(len(structures.layers))]
    return make_plan(
        structures, keep, layout=pruning.layout, protected=protected,
        requested=pruning.ratio, of=pruning.ratio_of, provenance=provenance,
    )  # fmt: skip


def protected_layers(structures: Structures, pruning: PruningConfig) -> list[int]:
    """Layers that are left whole. In the uniform layout, where all share one width, none."""
    depth = len(structures.layers)
    if pruning.layout == "uniform":
        return []
    return [
        i for i in range(depth) if i < pruning.protect_first or i >= depth - pruning.protect_last
    ]


def attention_mode(structures: Structures, pruning: PruningConfig) -> Attention:
    """What `auto` means for this model: removing heads of grouped-query models costs too much."""
    if pruning.attention == "auto":
        return "none" if structures.grouped_query else "kv_groups"
    return pruning.attention


def budget(structures: Structures, pruning: PruningConfig) -> int:
    """How many parameters the ratio asks to remove."""
    whole = {"all": structures.total_params, "blocks": structures.block_params}
    return round(pruning.ratio * whole[pruning.ratio_of])


def kept_heads(scores: Scores, structures: Structures, pruning: PruningConfig) -> list[list[int]]:
    """The query heads that each layer keeps, the same number in every KV group that is kept."""
    mode = attention_mode(structures, pruning)
    protected = set(protected_layers(structures, pruning))
    free = [i for i in range(len(structures.layers)) if i not in protected]
    whole = [list(range(widths.query_heads)) for widths in structures.layers]
    prunable = sum(structures.layer_params(structures.layers[i]) for i in free)
    share = budget(structures, pruning) / prunable if prunable else 0.0
    for i in free if mode != "none" else ():
        whole[i] = _heads_of_layer(scores, structures, pruning, mode, i, share)
    return whole


def _heads_of_layer(
    scores: Scores, structures: Structures, pruning: PruningConfig, mode: Attention, i: int,
    share: float,
) -> list[int]:  # fmt: skip
    dense = structures.layers[i]
    per_group = scores.heads[i].view(dense.kv_groups, -1)
    units, heads_of_unit = (
        (dense.kv_groups, dense.heads_per_group)
        if mode == "kv_groups"
        else (dense.heads_per_group, dense.kv_groups)
    )
    # A stock Llama config refuses a head count that the hidden size is no multiple of.
    stock = pruning.layout == "uniform" and structures.family.divides_hidden
    possible = [
        n for n in range(1, units + 1)
        if not stock or structures.hidden_size % (n * heads_of_unit) == 0
    ]  # fmt: skip
    count = min(possible, key=lambda n: (abs(n - units * (1 - share)), -n), default=units)
    if mode == "kv_groups":
        kept = _best(per_group.sum(1) + scores.groups[i], count)
        return [g * dense.heads_per_group + h for g in kept for h in range(dense.heads_per_group)]
    best = [_best(group, count) for group in per_group]
    return [g * dense.heads_per_group + h for g, kept in enumerate(best) for h in kept]


def mlp_widths(
    sensitivity: Tensor,
    structures: Structures,
    pruning: PruningConfig,
    heads: list[list[int]],
    exponent: float,
) -> list[int]:
    """Channels that each layer keeps: multiples of `round_to`, as near the ratio as they allow."""
    protected = set(protected_layers(structures, pruning))
    dense = [widths.mlp_channels for widths in structures.layers]
    free = [i for i in range(len(dense)) if i not in protected]
    missing = max(budget(structures, pruning) - _attention_removed(structures, heads), 0)
    channels = missing / structures.channel_params
    most = sum(dense[i] - min(pruning.round_to, dense[i]) for i in free)
    if channels > most:
        _refuse(structures, pruning, missing, most * structures.channel_params)
    if pruning.layout == "uniform":
        return [_uniform_width(dense, channels, pruning.round_to)] * len(dense)
    weights = sensitivity[free].double().clamp_min(1e-30) ** -exponent
    kept = _kept_by_layer([dense[i] for i in free], channels, weights, pruning.round_to)
    widths = list(dense)
    for i, width in zip(free, kept, strict=True):
        widths[i] = width
    return widths


def _uniform_width(dense: list[int], channels: float, multiple: int) -> int:
    narrowest = min(dense)
    wanted = (sum(dense) - channels) / len(dense)
    possible = [*range(multiple, narrowest + 1, multiple), narrowest]
    return int(min(possible, key=lambda width: abs(width - wanted)))


def _kept_by_layer(dense: list[int], channels: float, weights: Tensor, multiple: int) -> list[int]:
    """Widths whose sum is `sum(dense) - channels`, up to half a multiple, removing by `weights`."""
    limit = torch.tensor([d - min(multiple, d) for d in dense], dtype=torch.float64)
    shares = weights * torch.tensor(dense, dtype=torch.float64)
    removed = torch.zeros(len(dense), dtype=torch.float64)
    open_ = torch.ones(len(dense), dtype=torch.bool)
    while True:  # what a layer can't give, the others give: each round closes one at least
        rest = channels - removed[~open_].sum()
        removed[open_] = rest * shares[open_] / shares[open_].sum()
        over = open_ & (removed > limit)
        if not over.any():
            break
        removed[over], open_ = limit[over], open_ & ~over
    units = [(d - float(r)) / multiple for d, r in zip(dense, removed, strict=True)]
    whole = [max(int(u), 1) for u in units]
    spare = round(sum(units)) - sum(whole)
    by_remainder = sorted(range(len(dense)), key=lambda i: (whole[i] - units[i], i))
    for i in by_remainder[: max(spare, 0)]:
        whole[i] += 1
    return [min(w * multiple, d) for w, d in zip(whole, dense, strict=True)]


def _attention_removed(structures: Structures, heads: list[list[int]]) -> int:
    removed = 0
    for dense, kept in zip(structures.layers, heads, strict=True):
        narrow = LayerWidths(dense.mlp_channels, len(kept), len(kept_groups(dense, kept)))
        removed += structures.layer_params(dense) - structures.layer_params(narrow)
    return removed


def _best(scores: Tensor, count: int) -> list[int]:
    """The indices of the `count` highest scores, ascending; of equal ones the lower index."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return sorted(int(i) for i in order[:count])


def _refuse(structures: Structures, pruning: PruningConfig, missing: int, most: int) -> None:
    whole = {"all": structures.total_params, "blocks": structures.block_params}[pruning.ratio_of]
    reachable = pruning.ratio - (missing - most) / whole
    advice = "lower pruning.ratio"
    if pruning.layout == "per_layer" and pruning.protect_first + pruning.protect_last:
        advice += ", protect fewer layers (protect_first, protect_last)"
    if attention_mode(structures, pruning) == "none":
        advice += ", or let attention be pruned too (pruning.attention: kv_groups)"
    raise UserError(
        f"pruning.ratio {pruning.ratio:g} of {pruning.ratio_of} can't be reached in layout "
        f"{pruning.layout}: at most {max(reachable, 0):.3f} can be removed; {advice}"
    )
