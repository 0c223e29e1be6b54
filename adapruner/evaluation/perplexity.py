"""Perplexity by non-overlapping windows: exp of the mean negative log-likelihood a token, in nats.

A window of T tokens predicts T - 1 of them; the first has no context. This is the protocol of
LLM-Pruner and of the AdaPruner paper (T = 128).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapruner.progress import track

TOKENS_AT_ONCE = 2048


@torch.inference_mode()
def mean_loss(model: Any, windows: Tensor, description: str = "") -> float:
    """Mean negative log-likelihood in nats of the predicted tokens of `windows`, int [M, T].

    The bar is shown only when there is a `description`.
    """
    device = model.get_input_embeddings().weight.device
    batches = torch.split(windows, max(TOKENS_AT_ONCE // windows.shape[1], 1))
    total = 0.0
    for batch in track(batches, description) if description else batches:
        tokens = batch.to(device).long()
        logits = model(tokens, use_cache=False).logits[:, :-1]
        targets = tokens[:, 1:].to(logits.device).flatten()
        total += F.cross_entropy(logits.flatten(0, 1).float(), targets, reduction="sum").item()
    return total / (windows.shape[0] * (windows.shape[1] - 1))


def perplexity(model: Any, windows: Tensor, description: str = "") -> float:
    """Perplexity of `windows`, int [M, T]; infinite when it is too large for a float."""
    loss = mean_loss(model, windows, description)
    return math.exp(loss) if loss < 700 else math.inf


def windows_of(tokens: list[int], length: int, most: int | None = None) -> Tensor:
    """Non-overlapping windows, int32 [M, length]; the remainder is dropped."""
    count = len(tokens) // length
    count = count if most is None else min(count, most)
    return torch.tensor(tokens[: count * length], dtype=torch.int32).view(count, length)
