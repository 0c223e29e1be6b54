"""Speed of the pruned checkpoint against the dense one, measured in turn in one process.

Prefill is one forward pass over a prompt; decode is greedy generation of `new_tokens` after it with
the cache. Both at every batch size and prompt length, in tokens a second. A machine's speed drifts,
so the two models take turns at each setting and the speedup is of medians.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapruner.models import checkpoint as ckpt
from adapruner.config import EvaluationConfig, ModelConfig
from adapruner.progress import announce, track

Key = tuple[str, str, int, int]
"""Model, phase, batch size, tokens of the prompt."""


def measure(
    dense: Path, pruned: Path, model: ModelConfig, evaluation: EvaluationConfig, out: Path
) -> None:
    """Writes `speed.json`: figures of both checkpoints and their ratio; `{}` when switched off.

    `<model>.batch_<B>_prompt_<T>.<phase>_tokens_per_s` is the median, quartiles, least and largest
    of the repeats.
    """
    result = _measure(dense, pruned, model, evaluation) if evaluation.speed else {}
    text = json.dumps(result, indent=1, sort_keys=True) + "\n"
    (out / "speed.json").write_text(text, encoding="utf-8")


def _measure(
    dense: Path, pruned: Path, model: ModelConfig, evaluation: EvaluationConfig
) -> dict[str, Any]:
    models = {"dense": ckpt.load_model(dense, model), "pruned": ckpt.load_model(pruned, model)}
    settings = list(
        itertools.product(
            sorted(set(evaluation.batch_sizes)), sorted(set(evaluation.prompt_tokens))
        )
    )
    read = sum(batch * length for batch, length in settings)
    written = sum(batch * evaluation.new_tokens for batch, _ in settings)
    announce(
        f"speed: {evaluation.repeats} turns and one to warm up, of {len(settings)} settings with "
        f"each model; a turn reads {read:,} tokens and writes {written:,}"
    )
    seconds: dict[Key, list[float]] = {}
    for turn in track(range(evaluation.repeats + 1), "speed"):
        for (batch, length), (name, loaded) in itertools.product(settings, models.items()):
            prefill, decode = _once(loaded, batch, length, evaluation.new_tokens)
            if turn:  # the first turn warms up
                seconds.setdefault((name, "prefill", batch, length), []).append(prefill)
                seconds.setdefault((name, "decode", batch, length), []).append(decode)
    result: dict[str, Any] = {**{name: {} for name in models}, "speedup": {}}
    for (name, phase, batch, length), times in seconds.items():
        setting = f"batch_{batch}_prompt_{length}"
        tokens = batch * (length if phase == "prefill" else evaluation.new_tokens - 1)
        rates = [tokens / max(t, 1e-9) for t in times]
        result[name].setdefault(setting, {})[f"{phase}_tokens_per_s"] = spread(rates)
        gained = statistics.median(seconds["dense", phase, batch, length]) / max(
            statistics.median(seconds["pruned", phase, batch, length]), 1e-9
        )
        result["speedup"].setdefault(setting, {})[phase] = gained
    result["protocol"] = {
        "batch_sizes": sorted(set(evaluation.batch_sizes)),
        "prompt_tokens": sorted(set(evaluation.prompt_tokens)),
        "new_tokens": evaluation.new_tokens,
        "repeats": evaluation.repeats,
        "threads": torch.get_num_threads(),
        "device": str(models["dense"].device),
        "dtype": model.dtype,
    }
    return result


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles (linear between the values) and range of at least one value."""
    middle = statistics.median(values)
    low, _, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [middle] * 3
    )
    return {"median": middle, "q1": low, "q3": high, "min": min(values), "max": max(values)}


@torch.inference_mode()
def _once(model: Any, batch: int, length: int, new_tokens: int) -> tuple[float, float]:
    """Seconds of one prefill and of the decoding after it."""
    device = model.get_input_embeddings().weight.device
    vocabulary = model.config.vocab_size
    tokens = torch.arange(batch * length, device=device) * 7919 % vocabulary
    tokens = tokens.view(batch, -1)
    begun = _now(device)
    output = model(tokens, use_cache=True, logits_to_keep=1)
    prefilled = _now(device)
    for _ in range(new_tokens - 1):
        chosen: Tensor = output.logits[:, -1:].argmax(-1)
        output = model(chosen.to(device), past_key_values=output.past_key_values, use_cache=True)
    return prefilled - begun, _now(device) - prefilled


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
