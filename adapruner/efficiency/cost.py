"""The cost of a model by its shape: parameters, bytes, FLOPs and cache; and its peak memory.

FLOPs count two per multiply-add and cover matrix products only: norms, biases, activations, rotary
embeddings and the embedding lookup are left out. With P the weights of all projections in the
decoder layers (of experts, those of the router and of the experts that are chosen for a token), A
the sum over the layers of query heads times head size, V the vocabulary and H the hidden size:

- prefill of T tokens with the logits of the last one: 2 P T + 4 A T^2 + 2 H V, reported per token;
- decoding one token that attends to C positions, itself included: 2 P + 4 A C + 2 H V.

This is the forward part of the count in PaLM (arXiv 2204.02311, appendix B: 2 N per token, and
4 L heads head_size T for attention), with each layer's own widths. The attention matrix is counted
in full: a causal kernel that skips the masked half does 2 A T^2 less. Lengths are assumed to lie
within sliding windows.
"""

from __future__ import annotations

from pathlib import Path

import torch

from adapruner.config import EvaluationConfig, ModelConfig
from adapruner.efficiency.peak_memory import measure_peak_memory
from adapruner.efficiency.results import Cost, CostProtocol, Flops, ModelCost, PeakMemory
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import ResidualWidths, Structures


def measure_cost(
    dense: Path, pruned: Path, model: ModelConfig, evaluation: EvaluationConfig
) -> Cost:
    """The cost of both checkpoints at the lengths `prompt_tokens`."""
    peaks = measure_peak_memory((dense, pruned), model, evaluation)
    lengths = evaluation.prompt_tokens
    costs = [
        _model_cost(checkpoint, lengths, ckpt.compute_dtype(model), peak)
        for checkpoint, peak in zip((dense, pruned), peaks, strict=True)
    ]
    protocol = CostProtocol(
        lengths=lengths,
        dtype=ckpt.compute_dtype(model),
        memory_tokens=max(lengths),
        memory_new_tokens=evaluation.new_tokens,
    )
    return Cost(dense=costs[0], pruned=costs[1], protocol=protocol)


def prefill_flops(structures: Structures, vocabulary: int, tokens: int) -> int:
    """FLOPs of one forward pass over `tokens` tokens, with the logits of the last one."""
    attention = 4 * _attention_size(structures) * tokens**2
    return 2 * _projection_weights(structures) * tokens + attention + _head(structures, vocabulary)


def decode_flops(structures: Structures, vocabulary: int, context: int) -> int:
    """FLOPs of the next token when it attends to `context` positions, itself included."""
    attention = 4 * _attention_size(structures) * context
    return 2 * _projection_weights(structures) + attention + _head(structures, vocabulary)


def kv_bytes(structures: Structures, tokens: int, value_bytes: int) -> int:
    """Bytes of the cached keys and values of one sequence of `tokens` tokens."""
    groups = sum(layer.kv_groups for layer in structures.layers)
    return groups * group_kv_bytes(structures, tokens, value_bytes)


def group_kv_bytes(structures: Structures, tokens: int, value_bytes: int) -> int:
    """Bytes of the cached keys and values of one KV group."""
    return 2 * structures.head_dim * tokens * value_bytes


def _model_cost(
    checkpoint: Path, lengths: tuple[int, ...], dtype: str, memory: PeakMemory | None
) -> ModelCost:
    """The cost of a checkpoint, from its config and file headers; no weight is read."""
    structures = ckpt.inspect(checkpoint)
    vocabulary = int(ckpt.read_config(checkpoint).vocab_size)
    value_bytes = getattr(torch, dtype).itemsize
    return ModelCost(
        params=structures.total_params,
        weight_bytes=ckpt.size_on_disk(checkpoint),
        flops_per_token=Flops(
            prefill={str(n): prefill_flops(structures, vocabulary, n) / n for n in lengths},
            decode={str(n): decode_flops(structures, vocabulary, n) for n in lengths},
        ),
        kv_bytes_per_token=kv_bytes(structures, 1, value_bytes),
        kv_bytes={str(n): kv_bytes(structures, n, value_bytes) for n in lengths},
        memory=memory,
    )


def _projection_weights(structures: Structures) -> int:
    """Weights of the decoder layers' linear layers that compute a token, without biases."""
    hidden, head = structures.hidden_size, structures.head_dim
    whole = ResidualWidths(hidden, hidden, hidden, hidden)
    residual = structures.residual or (whole,) * len(structures.layers)
    return sum(
        (2 * stream.mlp_in + stream.mlp_out) * structures.active_channels(layer)
        + layer.experts * structures.expert_params
        + (stream.attention_in + stream.attention_out) * head * layer.query_heads
        + 2 * stream.attention_in * head * layer.kv_groups
        for layer, stream in zip(structures.layers, residual, strict=True)
    )


def _attention_size(structures: Structures) -> int:
    return structures.head_dim * sum(layer.query_heads for layer in structures.layers)


def _head(structures: Structures, vocabulary: int) -> int:
    return 2 * structures.hidden_size * vocabulary
