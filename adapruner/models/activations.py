"""How much memory forward and backward passes hold beside the weights, by counting numbers."""

from __future__ import annotations

from adapruner.models.head import LOGITS_AT_ONCE
from adapruner.models.structures import Structures

FLOAT = 4
"""Bytes of a number in float32."""

MOST, SMALL = 0.6, 2**30
"""A batch whose activations exceed both bounds, relative to the weights and in bytes, runs layer by
layer, and each layer computes its own activations again in the backward pass."""


def activation_bytes(
    structures: Structures, tokens: int, item: int, depth: int, kept: float = 1.0
) -> int:
    """Bytes that `depth` layers keep of `tokens` tokens for the backward pass.

    A number has `item` bytes; `kept` is the share of the channels that are not removed.
    """
    widths = structures.layers[0]
    heads = structures.head_dim * (widths.query_heads + widths.kv_groups)
    channels = int(structures.active_channels(widths) * kept)
    return tokens * depth * item * (7 * structures.hidden_size + 3 * heads + 5 * channels)


def logit_bytes(vocabulary: int, tokens: int) -> int:
    """Bytes of the logits that are in memory together, their softmax and its gradient."""
    return 3 * FLOAT * vocabulary * min(tokens, LOGITS_AT_ONCE)


def state_bytes(structures: Structures, tokens: int, item: int) -> int:
    """Bytes of the states at the inputs of all layers and the output of the last one."""
    return tokens * (len(structures.layers) + 1) * structures.hidden_size * item


def runs_by_layer(structures: Structures, tokens: int, item: int) -> bool:
    """Whether the layers compute their activations of so many tokens again, see MOST."""
    activations = activation_bytes(structures, tokens, item, len(structures.layers))
    return activations > max(MOST * item * structures.total_params, SMALL)


def held_bytes(structures: Structures, tokens: int, item: int) -> int:
    """Bytes that a forward and backward pass over a batch of `tokens` holds in its layers.

    The states between layers, where these run one by one, are in main memory.
    """
    if runs_by_layer(structures, tokens, item):
        one = activation_bytes(structures, tokens, item, 1)
        return one + state_bytes(structures, tokens, item)
    return activation_bytes(structures, tokens, item, len(structures.layers))
