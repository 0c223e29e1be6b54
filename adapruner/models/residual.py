"""Layers that read and write subsets of the residual stream: what can have them, and their sizes.

In a pre-norm decoder x is the residual stream of H dimensions, and a block adds f(norm(x)) to it.
With subsets R and W of the dimensions, f reads norm(x)[R] and adds to x[W] alone. The stream, its
norms and the embeddings keep H dimensions, so every block has subsets of its own (DISP-LLM, arXiv
2410.11988).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from adapruner.errors import UnreachableError
from adapruner.models.families import SHIPPED
from adapruner.models.structures import LayerWidths, Structures

SUBSETS = ("attention_in", "attention_out", "mlp_in", "mlp_out")
"""The subsets of one layer: what each of its blocks reads and writes."""

Count = TypeVar("Count", int, Tensor)


def check_residual(structures: Structures) -> None:
    """Raises UnreachableError for a model whose blocks can't read and write subsets exactly."""
    from adapruner.models.modeling import WRITERS  # it imports Transformers

    family = structures.family
    writers = tuple(name.rsplit(".", 1)[-1] for name in (family.output, family.down))
    if family.model_type not in SHIPPED or writers != WRITERS:
        why = "subsets are not proved for families that model.family: auto finds"
    elif structures.has_experts:
        why = "its layers have experts"
    elif not structures.is_pre_norm:
        why = "it has norms after its blocks, which span all dimensions that a block writes"
    else:
        return
    raise UnreachableError(
        f"pruning.layout residual_subsets does not suit {family.architecture}: {why}; use per_layer"
    )


def subset_params(
    structures: Structures,
    dense: LayerWidths,
    channels: Count,
    subsets: Mapping[str, Count],
) -> Count:
    """Parameters of one layer's projections with `channels` and subsets of these sizes.

    `structures` and `dense` are the dense model's: all heads are kept. With tensors as sizes the
    result is differentiable, and exact in float64.
    """
    hidden, head_dim = structures.hidden_size, structures.head_dim
    columns = head_dim * dense.query_heads
    rows = columns + 2 * head_dim * dense.kv_groups
    attention = structures.layer_params(replace(dense, mlp_channels=0))
    row_biases = attention - hidden * (rows + columns)
    channel_biases = structures.channel_params - 3 * hidden
    return (
        rows * subsets["attention_in"]
        + (columns + structures.writer_biases[0]) * subsets["attention_out"]
        + channels * (2 * subsets["mlp_in"] + subsets["mlp_out"] + channel_biases)
        + structures.writer_biases[1] * subsets["mlp_out"]
        + row_biases
    )
