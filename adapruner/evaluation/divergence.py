"""Divergence of a model's next-token distributions from the dense model's (the teacher's).

A distribution over a whole vocabulary is large, so that of each one only the K most likely tokens
are kept; all other tokens count as one more. The divergence between two distributions grouped in
this way is a lower bound of the full divergence (the log-sum inequality), and a close one where the
K tokens hold nearly all of the probability.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapruner.evaluation.normalizer import log_sum_exp
from adapruner.evaluation.perplexity import batches_of
from adapruner.models.streamed.passes import forward_passes
from adapruner.progress import track

TOP_K = 64
"""Tokens kept of each of the dense model's distributions in the search."""


class TopLogProbs(NamedTuple):
    """The K most likely next tokens at each position.

    `tokens` int32 [..., K]; `log_probs` float32 [..., K], in nats.
    """

    tokens: Tensor
    log_probs: Tensor


@torch.inference_mode()
def top_log_probs(model: Any, windows: Tensor, count: int, description: str = "") -> TopLogProbs:
    """The `count` most likely next tokens after each token but the last, [M, T - 1, count].

    `windows` is int [M, T]; the result is on the CPU. A progress bar is shown only with a
    `description`.
    """
    parts = batches_of(windows)
    batches = track(forward_passes(model, parts), description, len(parts))
    tops = [batch_log_probs(model, batch, count) for batch in batches]
    return TopLogProbs(*(torch.cat(part) for part in zip(*tops, strict=True)))


@torch.inference_mode()
def batch_log_probs(model: Any, batch: Tensor, count: int) -> TopLogProbs:
    """`top_log_probs` of a batch, int [B, T], that is run at once."""
    device = model.get_input_embeddings().weight.device
    logits = model(batch.to(device).long(), use_cache=False).logits[:, :-1]
    top = logits.topk(min(count, logits.shape[-1]), dim=-1)
    log_probs = top.values.float() - log_sum_exp(logits)
    return TopLogProbs(top.indices.int().cpu(), log_probs.cpu())


@torch.inference_mode()
def window_divergences(model: Any, batch: Tensor, teacher: TopLogProbs) -> Tensor:
    """Mean KL(teacher || model) in nats per predicted token of each window, [B].

    `batch`, int [B, T], is run at once; `teacher` has its distributions, [B, T - 1, K].
    """
    device = model.get_input_embeddings().weight.device
    logits = model(batch.to(device).long(), use_cache=False).logits[:, :-1]
    return divergence(teacher, logits).mean(1)


def split(teacher: TopLogProbs, size: int) -> list[TopLogProbs]:
    """The distributions of every `size` windows."""
    parts = zip(*(torch.split(part, size) for part in teacher), strict=True)
    return [TopLogProbs(*part) for part in parts]


def divergence(teacher: TopLogProbs, logits: Tensor) -> Tensor:
    """KL(teacher || softmax(logits)) in nats at each position; all other tokens count as one.

    `teacher` is [..., N, K], `logits` [..., N, V].
    """
    expected = teacher.log_probs.to(logits.device).float()
    listed = logits.gather(-1, teacher.tokens.to(logits.device).long()).float()
    predicted = listed - log_sum_exp(logits)
    top = (expected.exp() * (expected - predicted)).sum(-1)
    expected_rest, predicted_rest = _rest(expected), _rest(predicted)
    return top + expected_rest * (expected_rest.log() - predicted_rest.log())


def _rest(log_probs: Tensor) -> Tensor:
    """Probability of all tokens that are not listed, [..., N]; at least 1e-6, to have a log."""
    return (1 - log_probs.exp().sum(-1)).clamp_min(1e-6)
