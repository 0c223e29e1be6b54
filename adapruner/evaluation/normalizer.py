"""The logarithm of softmax's denominator, which log-probabilities of a few tokens need."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_BYTES = 2**21
"""Logits in float32 that fit in a processor's cache: there, three passes cost what one costs."""

DEVICE_CHUNK_BYTES = 2**28
"""Logits in float32 that keep an accelerator busy; two copies of them are small for its memory."""


def log_sum_exp(logits: Tensor) -> Tensor:
    """log of the sum of exp(logits) over the last dimension, float32 [..., N, 1], of [..., N, V].

    It is computed in float32 and (without gradients) without a copy of all logits. Several times as
    fast on a CPU as `torch.logsumexp`.
    """
    if logits.dim() > 2 and len(logits):  # one by one: to flatten a part of the positions copies it
        return torch.stack([log_sum_exp(part) for part in logits])
    chunk_bytes = CHUNK_BYTES if logits.device.type == "cpu" else DEVICE_CHUNK_BYTES
    rows = max(chunk_bytes // (4 * logits.shape[-1]), 1)
    return torch.cat([_of_chunk(chunk) for chunk in torch.split(logits, rows)])


def _of_chunk(logits: Tensor) -> Tensor:
    values = logits.float()
    top = values.detach().amax(-1, keepdim=True)
    sums: Tensor = (values - top).exp_().sum(-1, keepdim=True)
    return sums.log() + top
