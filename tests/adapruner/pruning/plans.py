"""Plans and masks for tests of small models."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from adapruner.config import PruningConfig
from adapruner.models.residual import SUBSETS
from adapruner.models.structures import Structures, describe_model, layer_modules
from adapruner.pruning.plan import (
    LayerPlan,
    PruningPlan,
    ResidualPlan,
    format_ranges,
    make_plan,
    plan_of_layers,
)
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
    """A plan that removes nothing, or one kind of structure; or ragged: others by layer."""
    structures = describe_model(model)
    keep = []
    for index, dense in enumerate(structures.layers):
        channels = list(range(dense.mlp_channels))
        heads = list(range(dense.query_heads))
        per_group = dense.heads_per_group
        ragged, fixed = what == "ragged", structures.family.couples_heads
        if what == "channels" or (ragged and index % 2):
            channels = [c for c in channels if (5 * c + index) % 3]
            if dense.experts:  # half of each, others of each second expert
                width = dense.mlp_width
                channels = [c for c in range(dense.mlp_channels) if (c % width + c // width) % 2]
        if dense.experts and (what == "experts" or (ragged and index == 3)):
            channels = [c for c in channels if c // dense.mlp_width != index % dense.experts]
        if fixed:
            pass  # no head can be removed
        elif (what == "kv_groups" or (ragged and index == 2)) and dense.kv_groups > 1:
            heads = [h for h in heads if h // per_group != index % dense.kv_groups]
        elif (what == "query_heads" or (ragged and index == 0)) and per_group > 1:
            heads = [h for h in heads if h % per_group != index % per_group]
        keep.append((channels, heads))
    return plan_keeping(structures, keep, "per_layer" if what == "ragged" else "uniform")


def plan_with_subsets(model: Any, seed: int = 0) -> PruningPlan:
    """A plan of random residual subsets and channels, of other sizes in every layer."""
    structures, drawn = describe_model(model), random.Random(seed)

    def some_of(size: int) -> str:
        return format_ranges(sorted(drawn.sample(range(size), drawn.randint(size // 2, size - 1))))

    hidden = structures.hidden_size
    layers = tuple(
        LayerPlan(
            mlp_channels=some_of(dense.mlp_channels),
            query_heads=format_ranges(range(dense.query_heads)),
            residual=ResidualPlan(size=hidden, **{name: some_of(hidden) for name in SUBSETS}),
        )
        for dense in structures.layers
    )
    pruning = PruningConfig(ratio=0.1, layout="residual_subsets")
    return plan_of_layers(PruningTarget(structures, pruning), layers, {})


@contextmanager
def masked(model: Any, plan: PruningPlan) -> Iterator[None]:
    """The dense model with the removed structures multiplied by zero, by no code of the library."""
    handles = []
    head_dim = describe_model(model).head_dim
    with ExitStack() as stack:
        for modules, kept in zip(layer_modules(model), plan.layers, strict=True):
            channel = torch.zeros(modules.down.in_features)
            channel[kept.channels()] = 1
            head = torch.zeros(modules.output.in_features).view(-1, head_dim)
            head[kept.heads()] = 1
            masks = [(modules.output, head.flatten())]
            if hasattr(modules.mlp, "experts"):
                stack.enter_context(masked_experts(modules.mlp, channel))
            else:
                masks.append((modules.down, channel))
            for linear, mask in masks:
                hook = lambda _, args, mask=mask: (args[0] * mask,)  # noqa: E731
                handles.append(linear.register_forward_pre_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def masked_experts(block: Any, channels: Tensor) -> Iterator[None]:
    """The block of a layer without some channels; experts without any are never chosen."""
    router, down = block.gate, block.experts.down_proj
    mask, whole = channels.view(len(down), 1, -1), down.data

    def route(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = hidden @ router.weight.T
        logits[:, mask.sum((1, 2)) == 0] = -torch.inf
        scores, chosen = logits.softmax(-1).topk(router.top_k)
        if router.norm_topk_prob:
            scores = scores / scores.sum(-1, keepdim=True)
        return logits, scores, chosen

    router.forward, down.data = route, whole * mask
    try:
        yield
    finally:
        down.data = whole
        del router.forward
