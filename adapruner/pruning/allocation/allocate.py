"""From scores to a plan: how wide each layer stays, and which structures it keeps.

The requested share is removed from the layers that are not protected. With attention among the
structures, the same share of attention is removed in whole units first and the MLPs make up the
rest. Every layer gives the same share of its channels, or one on the way to that of a measured
`Profile`. Scores that compare over layers shape the widths themselves: in the layout per_layer the
lowest channels of all unprotected layers together go, up to rounding.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any, Literal

import torch
from torch import Tensor

from adapruner.config import PruningConfig
from adapruner.errors import UnreachableError
from adapruner.pruning.plan import PruningPlan, kept_groups, kept_widths, make_plan
from adapruner.pruning.width_profile import Profile, removal
from adapruner.importance.scores import Scores
from adapruner.models.structures import LayerWidths, Structures

Attention = Literal["none", "kv_groups", "query_heads"]


def allocate(
    scores: Scores,
    structures: Structures,
    pruning: PruningConfig,
    provenance: dict[str, Any],
    profile: Profile | None = None,
) -> PruningPlan:
    """The plan that keeps the best structures by `scores` at the ratio of `pruning`.

    Raises UserError when the ratio can't be reached in the layout, when it rounds to nothing, or
    when the layout is uniform and the layers would differ.
    """
    protected = protected_layers(structures, pruning)
    heads = kept_heads(scores, structures, pruning)
    widths = mlp_widths(scores, structures, pruning, heads, profile)
    keep = [(_best(scores.mlp[i], widths[i]), heads[i]) for i in range(len(structures.layers))]
    plan = make_plan(
        structures, keep, layout=pruning.layout, protected=protected,
        requested=pruning.ratio, of=pruning.ratio_of, provenance=provenance,
    )  # fmt: skip
    _refuse_a_miss(plan, structures, pruning)
    return plan


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
    return round(pruning.ratio * _whole(structures, pruning))


def _whole(structures: Structures, pruning: PruningConfig) -> int:
    return structures.total_params if pruning.ratio_of == "all" else structures.block_params


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
    scores: Scores,
    structures: Structures,
    pruning: PruningConfig,
    heads: list[list[int]],
    profile: Profile | None = None,
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
    weights = _removal_weights(scores, free, channels, profile)
    kept = _kept_by_layer([dense[i] for i in free], channels, weights, pruning.round_to)
    widths = list(dense)
    for i, width in zip(free, kept, strict=True):
        widths[i] = width
    return widths


def _removal_weights(
    scores: Scores, free: list[int], channels: float, profile: Profile | None
) -> Tensor:
    """[free]: the share of its channels that each free layer gives, up to a common factor."""
    sizes = torch.tensor([len(scores.mlp[i]) for i in free])
    if not scores.comparable:
        equal = torch.full((len(free),), channels / int(sizes.sum()), dtype=torch.float64)
        if profile is None or not profile.share:
            return equal
        lowest = removal(profile.losses[free], sizes.tolist(), channels)
        return torch.lerp(equal, lowest, profile.share)
    owners = torch.repeat_interleave(torch.arange(len(free)), sizes)
    order = torch.sort(torch.cat([scores.mlp[i] for i in free]), stable=True).indices
    removed = torch.bincount(owners[order[: round(channels)]], minlength=len(free))
    return (removed / sizes).double().clamp_min(1e-9)


def _uniform_width(dense: list[int], channels: float, multiple: int) -> int:
    narrowest = min(dense)
    wanted = (sum(dense) - channels) / len(dense)
    possible = [*range(multiple, narrowest + 1, multiple), narrowest]
    return int(min(possible, key=lambda width: abs(width - wanted)))


def _kept_by_layer(dense: list[int], channels: float, weights: Tensor, multiple: int) -> list[int]:
    """Widths whose sum is `sum(dense) - channels`, up to half a multiple, removing by `weights`.

    A width is a multiple or, of a layer that is left whole, no multiple.
    """
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
    widths = [min(w * multiple, d) for w, d in zip(whole, dense, strict=True)]
    spare = sum(dense) - channels - sum(widths)
    for i in sorted(range(len(dense)), key=lambda i: (whole[i] - units[i], i)):
        wider = min(widths[i] + multiple, dense[i])
        if 2 * spare > wider - widths[i]:
            spare -= wider - widths[i]
            widths[i] = wider
    return widths


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


def _refuse_a_miss(plan: PruningPlan, structures: Structures, pruning: PruningConfig) -> None:
    """Raises UserError when the plan is not what was asked for, by more than rounding explains."""
    asked = f"pruning.ratio {pruning.ratio:g} of {pruning.ratio_of}"
    layers = zip(structures.layers, plan.layers, strict=True)
    kept = sorted({astuple(kept_widths(dense, layer)) for dense, layer in layers})
    if pruning.layout == "uniform" and len(kept) > 1:
        raise UnreachableError(
            f"pruning.layout uniform can't be had: the model's layers differ, and {asked} would "
            f"leave them {kept[0]} to {kept[-1]} (channels, query heads, KV groups); "
            "use pruning.layout: per_layer"
        )
    removed = plan.params.dense - plan.params.pruned
    if not removed:
        raise UnreachableError(
            f"{asked} rounds to nothing: widths are multiples of {pruning.round_to} channels, and "
            f"the least that can be removed is {_least(structures, pruning):.2g}; raise "
            "pruning.ratio or lower pruning.round_to"
        )
    if abs(removed - budget(structures, pruning)) > _rounding(structures, pruning):
        raise UnreachableError(
            f"{asked} can't be met in layout {pruning.layout}: the nearest that can be reached is "
            f"{removed / _whole(structures, pruning):.4f}; ask for that, lower pruning.round_to, "
            "or use another pruning.layout"
        )


def _rounding(structures: Structures, pruning: PruningConfig) -> float:
    """Parameters that a plan may differ by: half a width step, and one attention unit a layer."""
    free = set(range(len(structures.layers))) - set(protected_layers(structures, pruning))
    steps = len(free) if pruning.layout == "uniform" else 1
    mode, units = attention_mode(structures, pruning), 0
    for widths in (structures.layers[i] for i in free if mode != "none"):
        group = widths.heads_per_group * structures.head_params + structures.group_params
        units += group if mode == "kv_groups" else widths.kv_groups * structures.head_params
    return steps * pruning.round_to * structures.channel_params / 2 + units + 1


def _least(structures: Structures, pruning: PruningConfig) -> float:
    """The share that one width step removes: of one layer, or in the uniform layout of all."""
    multiple, protected = pruning.round_to, protected_layers(structures, pruning)
    dense = [w.mlp_channels for i, w in enumerate(structures.layers) if i not in protected]
    steps = [d - (d - 1) // multiple * multiple for d in dense if d > multiple]
    channels = sum(steps) if pruning.layout == "uniform" else min(steps, default=0)
    return channels * structures.channel_params / _whole(structures, pruning)


def _refuse(structures: Structures, pruning: PruningConfig, missing: int, most: int) -> None:
    reachable = pruning.ratio - (missing - most) / _whole(structures, pruning)
    advice = "lower pruning.ratio"
    if pruning.layout == "per_layer" and pruning.protect_first + pruning.protect_last:
        advice += ", protect fewer layers (protect_first, protect_last)"
    if attention_mode(structures, pruning) == "none":
        advice += ", or let attention be pruned too (pruning.attention: kv_groups)"
    raise UnreachableError(
        f"pruning.ratio {pruning.ratio:g} of {pruning.ratio_of} can't be reached in layout "
        f"{pruning.layout}: at most {max(reachable, 0):.3f} can be removed; {advice}"
    )
