"""Behaviour by its definition: agreement, divergence and greedy continuations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from adapruner.config import EvaluationConfig
from adapruner.data.pool import TestTexts
from adapruner.evaluation import behaviour as behaviour_module
from adapruner.evaluation.behaviour import (
    NEW_TOKENS,
    agreement,
    compare_behaviour,
    continuations,
    select_windows,
)
from adapruner.evaluation.results import Agreement, Behaviour
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.layers import stream_model
from adapruner.pruning.surgery import apply
from tests.adapruner.conftest import Workplace
from tests.adapruner.pruning.plans import plan_for
from tests.models import KINDS, small_model, tokens

PROMPTS = ("w5 w9 w33", "w40", "w7 w8 w9 w10 w11 w12")


@torch.inference_mode()
def greedy(model: Any, tokenizer: Any, prompt: str) -> str:
    """The continuation by a loop over whole forward passes, without a cache."""
    ids = tokenizer(prompt)["input_ids"]
    new: list[int] = []
    while len(new) < NEW_TOKENS:
        token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        new.append(token)
    return str(tokenizer.decode(new, skip_special_tokens=True))


def test_agreement_and_divergence_are_those_of_the_definition() -> None:
    dense, other, windows = small_model("llama"), small_model("llama", seed=1), tokens(3, 7)
    p = dense(windows.long()).logits.double().softmax(-1)
    q = other(windows.long()).logits.double().softmax(-1)
    result = agreement(dense, other, windows)
    assert result.kl_divergence == pytest.approx(
        float((p * (p / q).log()).sum(-1).mean()), rel=1e-4
    )
    same = (p.argmax(-1) == q.argmax(-1)).double().mean()
    assert result.agreement == pytest.approx(float(same))


def test_a_model_agrees_with_itself() -> None:
    model, windows = small_model("qwen2"), tokens(2, 8)
    assert agreement(model, model, windows) == Agreement(agreement=1.0, kl_divergence=0.0)


@pytest.mark.parametrize("end", ["none", "never met", "met"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_continuation_is_the_greedy_one(kind: str, end: str, workplace: Workplace) -> None:
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    tokenizer.eos_token = None
    model = small_model(kind)
    if end != "none":
        generated = greedy(model, tokenizer, PROMPTS[0]).split()
        absent = next(f"w{i}" for i in range(3, 90) if f"w{i}" not in generated)
        tokenizer.eos_token = generated[3] if end == "met" else absent
    texts = continuations(model, tokenizer, PROMPTS)
    assert texts == [greedy(model, tokenizer, prompt) for prompt in PROMPTS]
    if end == "met":
        assert len(texts[0].split()) <= 3


def test_prompts_are_continued_in_batches(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = small_model("llama"), ckpt.load_tokenizer(workplace.checkpoint)
    together = continuations(model, tokenizer, PROMPTS)
    monkeypatch.setattr(behaviour_module, "PROMPTS_AT_ONCE", 2)
    assert continuations(model, tokenizer, PROMPTS) == together


def test_a_per_layer_model_is_continued_too(workplace: Workplace, tmp_path: Path) -> None:
    model, tokenizer = small_model("llama"), ckpt.load_tokenizer(workplace.checkpoint)
    apply(model, plan_for(model, "ragged"))
    ckpt.save_checkpoint(model, workplace.checkpoint, tmp_path)
    reloaded = ckpt.load_model(tmp_path, workplace.model)
    expected = [greedy(reloaded, tokenizer, prompt) for prompt in PROMPTS]
    assert continuations(reloaded, tokenizer, PROMPTS) == expected


def test_the_checkpoints_generation_config_does_not_change_a_continuation(
    workplace: Workplace,
) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    expected = greedy(model, tokenizer, PROMPTS[0])
    first = int(expected.split()[0].removeprefix("w"))
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=3.0,
        num_beams=3,
        repetition_penalty=5.0,
        no_repeat_ngram_size=1,
        min_new_tokens=30,
        suppress_tokens=[first],
        bad_words_ids=[[first]],
        eos_token_id=[first, 11, 12],
        max_new_tokens=2,
        forced_eos_token_id=5,
    )
    assert continuations(model, tokenizer, PROMPTS[:1]) == [expected]


def test_windows_are_spread_evenly_over_the_text(workplace: Workplace) -> None:
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    text = " ".join(f"w{i % 60 + 30}" for i in range(80))  # w1 and w2 are special tokens
    settings = EvaluationConfig(sequence_length=8, max_windows=None, behaviour_windows=4)
    selected = select_windows(tokenizer, text, settings)
    assert selected[:, 0].tolist() == [30, 30 + 16, 30 + 40, 86]
    none = settings.model_copy(update={"behaviour_windows": 0})
    assert select_windows(tokenizer, text, none).shape[0] == 0


def test_every_model_is_compared_with_the_dense_one(workplace: Workplace, tmp_path: Path) -> None:
    settings = EvaluationConfig(sequence_length=16, behaviour_windows=3, prompts=("w5 w9",))
    models = {"pruned": workplace.checkpoint}
    texts = TestTexts.read(workplace.pool).texts
    behaviour = compare_behaviour(workplace.checkpoint, models, texts, workplace.model, settings)
    behaviour.write(tmp_path)
    assert Behaviour.read(tmp_path) == behaviour
    content = behaviour.model_dump()
    same = {"agreement": 1.0, "kl_divergence": 0.0}
    assert content["texts"] == {"made": {"windows": 3, "positions": 48, "pruned": same}}
    (row,) = content["continuations"]
    assert row["pruned"] == row["dense"] and row["prompt"] == "w5 w9"


def test_without_prompts_and_windows_nothing_is_compared(workplace: Workplace) -> None:
    settings = EvaluationConfig(sequence_length=16, behaviour_windows=0, prompts=())
    texts = TestTexts.read(workplace.pool).texts
    behaviour = compare_behaviour(workplace.checkpoint, {}, texts, workplace.model, settings)
    assert behaviour.texts == {} and behaviour.continuations == ()


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_models_agree_as_whole_ones_do(
    kind: str, workplace: Workplace, tmp_path: Path
) -> None:
    folders = [tmp_path / "dense", tmp_path / "pruned"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        ckpt.save_checkpoint(small_model(kind, seed=seed), workplace.checkpoint, folder)
    whole = [ckpt.load_model(folder, workplace.model) for folder in folders]
    streamed = [stream_model(f, torch.device("cpu"), torch.float32) for f in folders]
    windows = tokens(3, 16)
    assert agreement(*streamed, windows) == agreement(*whole, windows)


def test_streamed_models_are_compared_and_not_continued(
    workplace: Workplace, tmp_path: Path
) -> None:
    settings = EvaluationConfig(sequence_length=16, behaviour_windows=3, prompts=("w5 w9",))
    models, texts = {"pruned": workplace.checkpoint}, TestTexts.read(workplace.pool).texts
    whole, streamed = (
        compare_behaviour(workplace.checkpoint, models, texts, device, settings)
        for device in (workplace.model, workplace.model.model_copy(update={"streaming": True}))
    )
    assert streamed.texts == whole.texts
    assert whole.continuations and not streamed.continuations
