"""Prefill and greedy decoding with a key-value cache, timed."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Decoded(NamedTuple):
    """The new tokens, int64 [B, N], and the seconds of prefill and of the decoding after it.

    Prefill yields the first new token, so that decoding consists of N - 1 forward passes.
    """

    tokens: Tensor
    prefill_s: float
    decode_s: float


@torch.inference_mode()
def decode(model: Any, prompt: Tensor, new_tokens: int) -> Decoded:
    """Continues `prompt`, int64 [B, T], by `new_tokens` tokens, at least one.

    No token ends the generation, so that every model does the same amount of work.
    """
    device = model.get_input_embeddings().weight.device
    prompt = prompt.to(device)
    start = _now(device)
    output = model(prompt, use_cache=True, logits_to_keep=1)
    prefilled = _now(device)
    tokens: list[Tensor] = []
    for _ in range(new_tokens - 1):
        tokens.append(output.logits[:, -1:].argmax(-1).to(device))
        output = model(tokens[-1], past_key_values=output.past_key_values, use_cache=True)
    end = _now(device)
    tokens.append(output.logits[:, -1:].argmax(-1).to(device))
    return Decoded(torch.cat(tokens, dim=1), prefilled - start, end - prefilled)


def synthetic_prompt(batch: int, length: int, vocabulary: int) -> Tensor:
    """A prompt of varied token ids, int64 [batch, length]; the same for every call."""
    return (torch.arange(batch * length) * 7919 % vocabulary).view(batch, length)


def _now(device: torch.device) -> float:
    """Seconds of a clock, once the devices of this kind have finished their work.

    With one thread on the CPU, its clock stands still while other processes have the processor.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.thread_time()
    if device.type == "cuda":
        for i in range(torch.cuda.device_count()):  # a model can be spread over several
            torch.cuda.synchronize(i)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
