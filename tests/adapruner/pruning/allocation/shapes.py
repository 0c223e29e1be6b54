"""Structures and scores of models, for tests of allocation."""

from __future__ import annotations

from dataclasses import replace

import torch

from adapruner.importance.scores import Scores
from adapruner.models.families import FAMILIES
from adapruner.models.structures import LayerWidths, Structures
from adapruner.pruning.allocation.width_profile import REMOVED


def structures(
    depth: int = 30, query_heads: int = 9, kv_groups: int = 3, channels: int = 1536
) -> Structures:
    """SmolLM2-135M's, or a model like it of another depth, with other heads or channels."""
    hidden, head_dim = 576, 64
    head, group = 2 * hidden * head_dim, 2 * hidden * head_dim
    block = depth * (3 * hidden * channels + query_heads * head + kv_groups * group + 2 * hidden)
    return Structures(
        family=FAMILIES["llama"], head_dim=head_dim, hidden_size=hidden,
        layers=(LayerWidths(channels, query_heads, kv_groups),) * depth,
        channel_params=3 * hidden, head_params=head, group_params=group,
        total_params=block + 49152 * hidden + hidden, block_params=block,
        stock_head_counts=tuple(n for n in range(1, query_heads + 1) if hidden % n == 0),
    )  # fmt: skip


def unequal(first: LayerWidths) -> Structures:
    """A source that was pruned before: its first layer has other widths than the others."""
    shape = structures(depth=10, kv_groups=9)
    return replace(shape, layers=(first, *shape.layers[1:]))


def scores(shape: Structures, seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> torch.Tensor:
        return torch.rand(count, generator=generator)

    return Scores(
        mlp=[drawn(w.mlp_channels) for w in shape.layers],
        heads=[drawn(w.query_heads) for w in shape.layers],
        groups=[drawn(w.kv_groups) for w in shape.layers],
    )


def sensitivity(shape: Structures, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.rand(len(shape.layers), len(REMOVED), generator=generator)
    return steps.double().cumsum(1)


def ranked_across_layers(first: list[float]) -> Scores:
    """Comparable scores of four layers of 48 channels; `first` are the layers' offsets."""
    generator = torch.Generator().manual_seed(3)
    mlp = [torch.rand(48, generator=generator) + offset for offset in first]
    heads, groups = [torch.ones(4)] * 4, [torch.ones(2)] * 4
    return Scores(mlp=mlp, heads=heads, groups=groups, comparable=True)
