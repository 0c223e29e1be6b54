"""Plans and masks for tests of small models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from adapruner.config import PruningConfig
from adapruner.models.structures import Structures, describe_model, layer_modules
from adapruner.pruning.plan import PruningPlan, make_plan
from adapruner.pruning.target import PruningTarget


def plan_keeping(
    structures: Structures,
    keep: Sequence[tuple[Sequence[int], Sequence[int]]],
    layout: Any = "per_layer",
) -> PruningPlan:
    """The plan that keeps, of layer i, the channels `keep[i][0]` and the heads `keep[i][1]`."""
    pruning = PruningConfig(ratio=0.1, layout=layout, protect_first=0, protect_last=0)
    return make_plan(PruningTarget(structures, pruning), keep, {})


def plan_for(model: Any, what: str) -> PruningPlan:
    """A plan that removes nothing, channels, kv_groups or query_heads; or ragged: by layer."""
    structures = describe_model(model)
    keep = []
    for index, dense in enumerate(structures.layers):
        channels = list(range(dense.mlp_channels))
        heads = list(range(dense.query_heads))
        per_group = dense.heads_per_group
        ragged, fixed = what == "ragged", structures.family.couples_heads
        if what == "channels" or (ragged and index % 2):
            channels = [c for c in channels if (5 * c + index) % 3]
        if fixed:
            pass  # no head can be removed
        elif (what == "kv_groups" or (ragged and index == 2)) and dense.kv_groups > 1:
            heads = [h for h in heads if h // per_group != index % dense.kv_groups]
        elif (what == "query_heads" or (ragged and index == 0)) and per_group > 1:
            heads = [h for h in heads if h % per_group != index % per_group]
        keep.append((channels, heads))
    return plan_keeping(structures, keep, "per_layer" if what == "ragged" else "uniform")


@contextmanager
def masked(model: Any, plan: PruningPlan) -> Iterator[None]:
    """The dense model with the removed structures multiplied by zero, by no code of the library."""
    handles = []
    head_dim = describe_model(model).head_dim
    for modules, kept in zip(layer_modules(model), plan.layers, strict=True):
        channel = torch.zeros(modules.down.in_features)
        channel[kept.channels()] = 1
        head = torch.zeros(modules.output.in_features).view(-1, head_dim)
        head[kept.heads()] = 1
        for linear, mask in ((modules.down, channel), (modules.output, head.flatten())):
            hook = lambda _, args, mask=mask: (args[0] * mask,)  # noqa: E731
            handles.append(linear.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
