"""Behaviour of a pruned model next to the dense one: continuations and next-token agreement.

Scores can hide a change that a reader notices at once. So each model continues a few prompts
greedily, and on windows of the test texts the next-token distributions are compared: the share of
positions at which both models have the same most likely token, and the mean KL(dense || model) in
nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig

from adapruner.config import DeviceConfig, EvaluationConfig
from adapruner.evaluation.perplexity import windows_of
from adapruner.evaluation.results import Agreement, Behaviour, Continuation, TextComparison
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.choice import load_or_stream
from adapruner.models.streamed.layers import is_streamed
from adapruner.models.streamed.passes import forward_passes
from adapruner.progress import announce, track

NEW_TOKENS = 40
"""Maximum tokens of a continuation; it ends earlier at the end-of-text token."""
PROMPTS_AT_ONCE = 8
"""Prompts that are continued together."""


def compare_behaviour(
    dense: Path,
    models: Mapping[str, Path],
    texts: dict[str, str],
    device: DeviceConfig,
    evaluation: EvaluationConfig,
) -> Behaviour:
    """Compares each of `models` (name -> checkpoint) with the checkpoint `dense`.

    Of each text, `behaviour_windows` windows are compared, evenly spread over those that its
    perplexity is measured on. At most two models are loaded at a time. Where one of them is
    streamed there are no continuations: each of their tokens would read all its layers.
    """
    tokenizer = ckpt.load_tokenizer(dense)
    windows = {name: select_windows(tokenizer, text, evaluation) for name, text in texts.items()}
    windows = {name: selected for name, selected in windows.items() if len(selected)}
    positions = sum(selected.numel() for selected in windows.values())
    reference = load_or_stream(dense, device, "1 read for each text and compared model")
    prompts = _continued(reference, evaluation.prompts)
    announce(
        f"behaviour: {len(prompts)} prompts of up to {NEW_TOKENS} new tokens and "
        f"{positions:,} positions of the test texts, with each model"
    )
    written = {"dense": continuations(reference, tokenizer, prompts)}
    agreements: dict[str, dict[str, Agreement]] = {name: {} for name in windows}
    for name, path in models.items():
        model = load_or_stream(path, device, "1 read for each text")
        prompts = _continued(model, prompts)
        written[name] = continuations(model, tokenizer, prompts)
        for text, selected in windows.items():
            agreements[text][name] = agreement(reference, model, selected, f"behaviour, {name}")
        del model
    return _behaviour(prompts, written, windows, agreements)


def select_windows(tokenizer: Any, text: str, evaluation: EvaluationConfig) -> Tensor:
    """Windows spread evenly over those that the text's perplexity is measured on, int32 [M, T]."""
    tokens = tokenizer(text, verbose=False)["input_ids"]
    windows = windows_of(tokens, evaluation.sequence_length, evaluation.max_windows)
    count = min(evaluation.behaviour_windows, len(windows))
    return windows[[i * len(windows) // count for i in range(count)]]


def _continued(model: Any, prompts: tuple[str, ...]) -> tuple[str, ...]:
    """The prompts that `model` continues: none where it is streamed."""
    if not is_streamed(model):
        return prompts
    if prompts:
        announce("behaviour: no prompt is continued, as each token would read all layers")
    return ()


def continuations(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """The greedy continuation of each of `prompts`; one that is continued alone rounds otherwise.

    It replaces the model's generation config, so that no setting that comes with the checkpoint (a
    repetition penalty, other end tokens) affects the result.
    """
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=end,
        pad_token_id=end if pad is None else pad,
    )
    model.generation_config = config
    device = model.get_input_embeddings().weight.device
    texts: list[str] = []
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        some = prompts[start : start + PROMPTS_AT_ONCE]
        padded = _padded_left([tokenizer(prompt)["input_ids"] for prompt in some])
        tokens, mask = (part.to(device) for part in padded)
        output = model.generate(tokens, attention_mask=mask, generation_config=config)
        for new_tokens in output[:, tokens.shape[1] :].tolist():
            if end in new_tokens:  # not every tokenizer marks it as special; padding may follow it
                new_tokens = new_tokens[: new_tokens.index(end)]
            texts.append(tokenizer.decode(new_tokens, skip_special_tokens=True))
    return texts


def _padded_left(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids, with zeros before the shorter prompts, and their mask, int64 [B, T] each."""
    length = max(map(len, prompts))
    tokens = [[0] * (length - len(prompt)) + [*prompt] for prompt in prompts]
    mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens, dtype=torch.long), torch.tensor(mask, dtype=torch.long)


@torch.inference_mode()
def agreement(dense: Any, model: Any, windows: Tensor, description: str = "") -> Agreement:
    """Next-token agreement and mean KL(dense || model) over all positions of int [M, T]."""
    same, total, single = 0, 0.0, torch.split(windows, 1)
    passes = [forward_passes(m, single) for m in (dense, model)]
    for window, _ in track(zip(*passes, strict=True), description, len(single)):
        expected, predicted = (_log_probs(m, window) for m in (dense, model))
        predicted = predicted.to(expected.device)
        same += int((expected.argmax(-1) == predicted.argmax(-1)).sum())
        total += F.kl_div(predicted, expected, reduction="sum", log_target=True).item()
    return Agreement(agreement=same / windows.numel(), kl_divergence=total / windows.numel())


def _log_probs(model: Any, window: Tensor) -> Tensor:
    """Log probabilities of the next token at each position, float32 [T, V] for int [1, T]."""
    tokens = window.to(model.get_input_embeddings().weight.device).long()
    logits: Tensor = model(tokens, use_cache=False).logits[0]
    return logits.float().log_softmax(-1)


def _behaviour(
    prompts: tuple[str, ...],
    continuations: Mapping[str, list[str]],
    windows: Mapping[str, Tensor],
    agreements: Mapping[str, Mapping[str, Agreement]],
) -> Behaviour:
    by_prompt = (
        {"prompt": prompt, **{name: texts[i] for name, texts in continuations.items()}}
        for i, prompt in enumerate(prompts)
    )
    by_text = {
        name: {"windows": len(selected), "positions": selected.numel(), **agreements[name]}
        for name, selected in windows.items()
    }
    return Behaviour(
        continuations=tuple(map(Continuation.model_validate, by_prompt)),
        new_tokens=NEW_TOKENS,
        texts={name: TextComparison.model_validate(text) for name, text in by_text.items()},
    )
