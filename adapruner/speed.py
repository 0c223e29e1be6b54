"""Speed of the pruned checkpoint against the dense one, measured in turn in one process.

Prefill is one forward pass over `prompt_tokens`; decode is greedy generation of `new_tokens` with
the cache, the prefill's time taken off. Both at batch size 1 and at the evaluation's batch size, in
tokens a second. A machine's speed drifts, so the two models take turns and the ratio is of medians.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapruner import checkpoint as ckpt
from adapruner.config import EvaluationConfig, ModelConfig
from adapruner.progress import track


def measure(
    dense: Path, pruned: Path, model: ModelConfig, evaluation: EvaluationConfig, out: Path
) -> None:
    """Writes `speed.json`: figures of both checkpoints and their ratio; `{}` when switched off."""
    result = _measure(dense, pruned, model, evaluation) if evaluation.speed else {}
    text = json.dumps(result, indent=1, sort_keys=True) + "\n"
    (out / "speed.json").write_text(text, encoding="utf-8")


def _measure(
    dense: Path, pruned: Path, model: ModelConfig, evaluation: EvaluationConfig
) -> dict[str, Any]:
    models = {"dense": ckpt.load_model(dense, model), "pruned": ckpt.load_model(pruned, model)}
    batches = sorted({1, evaluation.batch_size})
    seconds: dict[tuple[str, str, int], list[float]] = {}
    for turn in track(range(evaluation.repeats + 1), "speed"):
        for batch in batches:
            for name, loaded in models.items():
                prefill, decode = _once(loaded, batch, evaluation)
                if turn:  # the first turn warms up
                    seconds.setdefault((name, "prefill", batch), []).append(prefill)
                    seconds.setdefault((name, "decode", batch), []).append(decode)
    tokens = {"prefill": evaluation.prompt_tokens, "decode": evaluation.new_tokens - 1}
    result: dict[str, Any] = {name: {} for name in models}
    for (name, phase, batch), times in seconds.items():
        rates = [batch * tokens[phase] / max(t, 1e-9) for t in times]
        result[name].setdefault(f"batch_{batch}", {})[f"{phase}_tokens_per_s"] = {
            "median": statistics.median(rates),
            "min": min(rates),
            "max": max(rates),
        }
    result["speedup"] = {
        f"batch_{batch}": {
            phase: statistics.median(seconds["dense", phase, batch])
            / statistics.median(seconds["pruned", phase, batch])
            for phase in tokens
        }
        for batch in batches
    }
    result["protocol"] = {
        "prompt_tokens": evaluation.prompt_tokens,
        "new_tokens": evaluation.new_tokens,
        "repeats": evaluation.repeats,
        "threads": torch.get_num_threads(),
        "device": str(models["dense"].device),
        "dtype": model.dtype,
    }
    return result


@torch.inference_mode()
def _once(model: Any, batch: int, evaluation: EvaluationConfig) -> tuple[float, float]:
    """Seconds of one prefill and of the decoding after it."""
    device = model.get_input_embeddings().weight.device
    vocabulary = model.config.vocab_size
    tokens = torch.arange(batch * evaluation.prompt_tokens, device=device) * 7919 % vocabulary
    tokens = tokens.view(batch, -1)
    begun = _now(device)
    output = model(tokens, use_cache=True, logits_to_keep=1)
    prefilled = _now(device)
    for _ in range(evaluation.new_tokens - 1):
        chosen: Tensor = output.logits[:, -1:].argmax(-1)
        output = model(chosen.to(device), past_key_values=output.past_key_values, use_cache=True)
    return prefilled - begun, _now(device) - prefilled


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
