"""What a model costs by its shape, and the memory that generating with it takes.

FLOPs are counted as two for a multiply-add, of matrix products alone: norms, biases, activations,
rotary embeddings and the embedding lookup are left out. With P the weights of all projections of
the decoder layers, A the sum over the layers of query heads times head size, V the vocabulary and
H the hidden size:

- prefill of T tokens, logits of the last one: 2 P T + 4 A T^2 + 2 H V, told as a mean a token;
- decoding one token that attends to C positions, itself among them: 2 P + 4 A C + 2 H V.

It is the forward part of the count in PaLM (arXiv 2204.02311, appendix B: 2 N a token, and
4 L heads head_size T for attention), with each layer's own widths. The square of scores is counted
whole: a causal kernel that skips its masked half does 2 A T^2 less. Sliding windows are not
considered: lengths are taken to lie within them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from adapruner.models import checkpoint as ckpt
from adapruner.efficiency import peak_memory
from adapruner.config import EvaluationConfig, ModelConfig
from adapruner.progress import announce
from adapruner.models.structures import Structures


def measure(
    dense: Path, pruned: Path, model: ModelConfig, evaluation: EvaluationConfig, out: Path
) -> None:
    """Writes `cost.json`: parameters, bytes, FLOPs, cache and peak memory of both checkpoints.

    Bytes of the cache are those of `model.dtype`. Peak memory is null where it is switched off,
    with `peak_memory` or with `speed`, and where it could not be measured.
    """
    paths = {"dense": dense, "pruned": pruned}
    result: dict[str, Any] = {
        name: shape_cost(path, model, evaluation) for name, path in paths.items()
    }
    peaks = _peaks(list(paths.values()), model, evaluation)
    for name, peak in zip(paths, peaks, strict=True):
        result[name]["memory"] = peak
    result["protocol"] = {
        "lengths": list(evaluation.prompt_tokens),
        "dtype": model.dtype,
        "memory_tokens": max(evaluation.prompt_tokens),
        "memory_new_tokens": evaluation.new_tokens,
    }
    text = json.dumps(result, indent=1, sort_keys=True) + "\n"
    (out / "cost.json").write_text(text, encoding="utf-8")


def shape_cost(
    checkpoint: Path, model: ModelConfig, evaluation: EvaluationConfig
) -> dict[str, Any]:
    """Cost of a checkpoint from its config and file headers; FLOPs are a token, sizes are bytes."""
    structures = ckpt.inspect(checkpoint)
    vocabulary = int(ckpt.read_config(checkpoint).vocab_size)
    value_bytes = getattr(torch, model.dtype).itemsize
    lengths = evaluation.prompt_tokens
    return {
        "params": structures.total_params,
        "weight_bytes": ckpt.size_on_disk(checkpoint),
        "flops_per_token": {
            "prefill": {str(n): prefill_flops(structures, vocabulary, n) / n for n in lengths},
            "decode": {str(n): decode_flops(structures, vocabulary, n) for n in lengths},
        },
        "kv_bytes_per_token": kv_bytes(structures, 1, value_bytes),
        "kv_bytes": {str(n): kv_bytes(structures, n, value_bytes) for n in lengths},
    }


def prefill_flops(structures: Structures, vocabulary: int, tokens: int) -> int:
    """FLOPs of one forward pass over `tokens` tokens, with the logits of the last one."""
    attention = 4 * _attention_size(structures) * tokens**2
    return 2 * _projection_weights(structures) * tokens + attention + _head(structures, vocabulary)


def decode_flops(structures: Structures, vocabulary: int, context: int) -> int:
    """FLOPs of the next token when it attends to `context` positions, itself among them."""
    attention = 4 * _attention_size(structures) * context
    return 2 * _projection_weights(structures) + attention + _head(structures, vocabulary)


def kv_bytes(structures: Structures, tokens: int, value_bytes: int) -> int:
    """Bytes of the keys and values that `tokens` tokens of one sequence leave in the cache."""
    groups = sum(layer.kv_groups for layer in structures.layers)
    return 2 * groups * structures.head_dim * tokens * value_bytes


def _projection_weights(structures: Structures) -> int:
    """Weights of the decoder layers' linear layers, without biases."""
    hidden, head = structures.hidden_size, structures.head_dim
    return sum(
        3 * hidden * layer.mlp_channels
        + 2 * hidden * head * layer.query_heads
        + 2 * hidden * head * layer.kv_groups
        for layer in structures.layers
    )


def _attention_size(structures: Structures) -> int:
    return structures.head_dim * sum(layer.query_heads for layer in structures.layers)


def _head(structures: Structures, vocabulary: int) -> int:
    return 2 * structures.hidden_size * vocabulary


def _peaks(
    checkpoints: list[Path], model: ModelConfig, evaluation: EvaluationConfig
) -> list[dict[str, Any] | None]:
    if not (evaluation.speed and evaluation.peak_memory):
        return [None] * len(checkpoints)
    request = {
        "checkpoints": [str(path.absolute()) for path in checkpoints],
        "model": model.model_dump(mode="json"),
        "tokens": max(evaluation.prompt_tokens),
        "new_tokens": evaluation.new_tokens,
    }
    ended = subprocess.run(
        [sys.executable, "-m", peak_memory.__name__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it was killed"])[-1]
        announce(f"peak memory could not be measured: {last[:200]}")
        return [None] * len(checkpoints)
    found: list[dict[str, Any] | None] = json.loads(ended.stdout.splitlines()[-1])
    return found
