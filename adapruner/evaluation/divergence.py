"""What the dense model expects after each token, kept as its likeliest tokens.

The whole distribution over a vocabulary is large: of every position only the `count` likeliest
tokens are kept, and the rest counts as one more. The divergence between two distributions grouped
alike is a lower bound of that between the whole ones (the log-sum inequality), and near it where
the likeliest tokens hold nearly all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapruner.evaluation.perplexity import TOKENS_AT_ONCE
from adapruner.progress import track


class Likely(NamedTuple):
    """By position: the likeliest next tokens, int32 [..., K], and their log probabilities in nats,
    float32 [..., K]."""

    tokens: Tensor
    logs: Tensor


@torch.inference_mode()
def likeliest(model: Any, windows: Tensor, count: int, description: str = "") -> Likely:
    """What `model` expects after each token but the last of `windows`, int [M, T]: [M, T - 1, K].

    The result is on the CPU. The bar is shown only when there is a `description`.
    """
    device = model.get_input_embeddings().weight.device
    batches = torch.split(windows, max(TOKENS_AT_ONCE // windows.shape[1], 1))
    tokens, logs = [], []
    for batch in track(batches, description) if description else batches:
        logits = model(batch.to(device).long(), use_cache=False).logits[:, :-1].float()
        found = logits.topk(min(count, logits.shape[-1]), dim=-1)
        logs.append((found.values - logits.logsumexp(-1, keepdim=True)).cpu())
        tokens.append(found.indices.int().cpu())
    return Likely(torch.cat(tokens), torch.cat(logs))


def divergence(known: Likely, logits: Tensor) -> Tensor:
    """KL(known || softmax(logits)) in nats a token, [N], with all unlikely tokens as one.

    `known` is [N, K], `logits` [N, V].
    """
    wanted = known.logs.to(logits.device).float()
    whole = logits.float().log_softmax(-1)
    found = whole.gather(-1, known.tokens.to(logits.device).long())
    kept = (wanted.exp() * (wanted - found)).sum(-1)
    rest, found_rest = _rest(wanted), _rest(found)
    return kept + rest * (rest.log() - found_rest.log())


def _rest(logs: Tensor) -> Tensor:
    """The probability of the tokens that are not among those of `logs`; never quite 0."""
    return (1 - logs.exp().sum(-1)).clamp_min(1e-6)
