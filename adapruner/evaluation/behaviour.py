"""How a cut model behaves beside the dense one: what it says, and how often it would say the same.

Scores can hide a change that a reader sees at once. So a few prompts are continued greedily by each
model, and on windows of the test texts the next-token distributions are compared: the share of
positions whose likeliest next token is the dense model's, and the mean KL(dense || model) in nats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapruner.models import checkpoint as ckpt
from adapruner.config import EvaluationConfig, ModelConfig
from adapruner.evaluation.perplexity import windows_of
from adapruner.progress import announce, track

NEW_TOKENS = 40
"""Tokens of a continuation at most; one that ends itself is shorter."""


def compare(
    dense: Path,
    models: Mapping[str, Path],
    pool: Path,
    model: ModelConfig,
    evaluation: EvaluationConfig,
    out: Path,
) -> None:
    """Writes `behaviour.json`: `continuations` by prompt and `texts`, the comparison by test text.

    Of each test text `behaviour_windows` windows, evenly spread over those that its perplexity is
    of, are compared. At any time two models are loaded, the dense one and one of `models`.
    """
    reference, tokenizer = ckpt.load_model(dense, model), ckpt.load_tokenizer(dense)
    texts = json.loads((pool / "test.json").read_text(encoding="utf-8"))
    windows = {name: chosen_windows(tokenizer, text, evaluation) for name, text in texts.items()}
    windows = {name: chosen for name, chosen in windows.items() if len(chosen)}
    positions = sum(chosen.numel() for chosen in windows.values())
    announce(
        f"behaviour: {len(evaluation.prompts)} prompts of up to {NEW_TOKENS} new tokens, and "
        f"{positions:,} positions of the test texts, by each model"
    )
    prompts = evaluation.prompts
    said = {"dense": [continuation(reference, tokenizer, prompt) for prompt in prompts]}
    compared: dict[str, dict[str, Any]] = {
        name: {"windows": len(chosen), "positions": chosen.numel()}
        for name, chosen in windows.items()
    }
    for name, path in models.items():
        loaded = ckpt.load_model(path, model)
        said[name] = [continuation(loaded, tokenizer, prompt) for prompt in prompts]
        for text, chosen in windows.items():
            compared[text][name] = divergence(reference, loaded, chosen, f"behaviour, {name}")
        del loaded
    continuations = [
        {"prompt": prompt, **{name: texts[i] for name, texts in said.items()}}
        for i, prompt in enumerate(prompts)
    ]
    result = {"continuations": continuations, "new_tokens": NEW_TOKENS, "texts": compared}
    text = json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (out / "behaviour.json").write_text(text, encoding="utf-8")


def chosen_windows(tokenizer: Any, text: str, evaluation: EvaluationConfig) -> Tensor:
    """int32 [M, T]: windows spread evenly over those that the text's perplexity is measured on."""
    tokens = tokenizer(text, verbose=False)["input_ids"]
    windows = windows_of(tokens, evaluation.sequence_length, evaluation.max_windows)
    count = min(evaluation.behaviour_windows, len(windows))
    return windows[[i * len(windows) // count for i in range(count)]]


@torch.inference_mode()
def continuation(model: Any, tokenizer: Any, prompt: str) -> str:
    """What the model says after `prompt`, each token the likeliest one."""
    tokens = torch.tensor([tokenizer(prompt)["input_ids"]], dtype=torch.long)
    device = model.get_input_embeddings().weight.device
    end = tokenizer.eos_token_id
    output = model(tokens.to(device), use_cache=True, logits_to_keep=1)
    chosen: list[int] = []
    while len(chosen) < NEW_TOKENS:
        token = int(output.logits[0, -1].argmax())
        if token == end:
            break
        chosen.append(token)
        step = torch.tensor([[token]], device=device)
        output = model(step, past_key_values=output.past_key_values, use_cache=True)
    said: str = tokenizer.decode(chosen, skip_special_tokens=True)
    return said


@torch.inference_mode()
def divergence(dense: Any, model: Any, windows: Tensor, description: str = "") -> dict[str, float]:
    """`agreement`, a share of 1, and `kl` in nats a token, over all positions of int [M, T]."""
    same, total = 0, 0.0
    for window in track(windows, description) if description else windows:
        wanted, given = (_log_probabilities(m, window) for m in (dense, model))
        given = given.to(wanted.device)
        same += int((wanted.argmax(-1) == given.argmax(-1)).sum())
        total += F.kl_div(given, wanted, reduction="sum", log_target=True).item()
    return {"agreement": same / windows.numel(), "kl": total / windows.numel()}


def _log_probabilities(model: Any, window: Tensor) -> Tensor:
    """float32 [T, V] for int [T]."""
    tokens = window.to(model.get_input_embeddings().weight.device).long()[None]
    logits: Tensor = model(tokens, use_cache=False).logits[0]
    return logits.float().log_softmax(-1)
