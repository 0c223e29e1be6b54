"""Perplexity on non-overlapping windows: exp of the mean negative log-likelihood per token in nats.

A window of T tokens predicts T - 1 of them; the first has no context. This is the protocol of
LLM-Pruner and of the AdaPruner paper (T = 128).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from adapruner.evaluation.normalizer import log_sum_exp
from adapruner.models.streamed.passes import forward_passes
from adapruner.progress import track

TOKENS_AT_ONCE = 2048
"""Maximum number of tokens in one forward pass, unless a single window is longer."""


def perplexity(model: Any, windows: Tensor, description: str = "") -> float:
    """Perplexity of `windows`, int [M, T]; infinite when it overflows a float."""
    return perplexity_of(mean_loss(model, windows, description))


def perplexity_of(loss: float) -> float:
    """The perplexity at a mean loss in nats; infinite when it overflows a float."""
    return math.exp(loss) if loss < 700 else math.inf


@torch.inference_mode()
def mean_loss(model: Any, windows: Tensor, description: str = "") -> float:
    """Mean negative log-likelihood in nats of the predicted tokens of `windows`, int [M, T].

    A progress bar is shown only with a `description`.
    """
    parts = batches_of(windows)
    batches = track(forward_passes(model, parts), description, len(parts))
    return sum(window_losses(model, batch).sum().item() for batch in batches) / len(windows)


@torch.inference_mode()
def window_losses(model: Any, batch: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats of the predicted tokens of each window, [B].

    `batch`, int [B, T], is run at once.
    """
    tokens = batch.to(model.get_input_embeddings().weight.device).long()
    logits = model(tokens, use_cache=False).logits[:, :-1]
    targets = tokens[:, 1:].to(logits.device).unsqueeze(-1)
    losses: Tensor = log_sum_exp(logits) - logits.gather(-1, targets).float()
    return losses.squeeze(-1).mean(1)


def windows_of(tokens: list[int], length: int, max_windows: int | None = None) -> Tensor:
    """Non-overlapping windows of a token sequence, int32 [M, length]; the remainder is dropped."""
    count = len(tokens) // length
    count = count if max_windows is None else min(count, max_windows)
    return torch.tensor(tokens[: count * length], dtype=torch.int32).view(count, length)


def batches_of(windows: Tensor, tokens: int | None = None) -> tuple[Tensor, ...]:
    """`windows`, [M, T], split into batches of at most `tokens`, by default TOKENS_AT_ONCE."""
    return torch.split(windows, max((tokens or TOKENS_AT_ONCE) // windows.shape[1], 1))
