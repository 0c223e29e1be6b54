"""The head of a causal language model alone, so that the logits of few tokens are in memory.

The logits of a batch, and their gradients, are often larger than the model. So the decoder runs on
the whole batch, and the head on some of the decoder's outputs at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

LOGITS_AT_ONCE = 128
"""Positions whose logits are in memory together."""


def decoder_output(causal: Any, **inputs: Any) -> Any:
    """The output of the decoder of `causal`, whose `last_hidden_state` is [B, T, hidden]."""
    return causal.get_decoder()(**inputs, use_cache=False)


def head_logits(causal: Any, output: Any, states: Tensor, tokens: Tensor) -> Tensor:
    """The logits [B, T, V] of `states` [B, T, hidden], part of the decoder's `output`.

    Of `tokens`, int [B, T], the device matters alone: a model that is spread over several returns
    its logits there.
    """
    with _decoded(causal.get_decoder(), type(output)(states)):
        logits: Tensor = causal(input_ids=tokens, use_cache=False).logits
    return logits


@contextmanager
def _decoded(decoder: Any, output: Any) -> Iterator[None]:
    """Within it, the decoder returns `output` and computes nothing."""
    own = vars(decoder).get("forward")  # Accelerate's wrapper, of a model spread over devices
    decoder.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del decoder.forward
        if own is not None:
            decoder.forward = own
