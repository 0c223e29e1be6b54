"""Behaviour by its definition: agreement, divergence and greedy continuations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adapruner.models import checkpoint as ckpt
from adapruner.evaluation.behaviour import NEW_TOKENS, chosen_windows, compare, continuation, divergence
from adapruner.config import EvaluationConfig
from tests.adapruner.conftest import Workplace
from tests.models import small_model, tokens


def test_agreement_and_divergence_are_those_of_the_definition() -> None:
    dense, other, windows = small_model("llama"), small_model("llama", seed=1), tokens(3, 7)
    p = dense(windows.long()).logits.double().softmax(-1)
    q = other(windows.long()).logits.double().softmax(-1)
    found = divergence(dense, other, windows)
    assert found["kl"] == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-4)
    same = (p.argmax(-1) == q.argmax(-1)).double().mean()
    assert found["agreement"] == pytest.approx(float(same))


def test_a_model_agrees_with_itself() -> None:
    model, windows = small_model("qwen2"), tokens(2, 8)
    assert divergence(model, model, windows) == {"agreement": 1.0, "kl": 0.0}


def test_a_continuation_is_the_library_s_greedy_one(workplace: Workplace) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    ids = tokenizer("w5 w9 w33", return_tensors="pt")["input_ids"]
    whole = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )[0, 3:]
    wanted = tokenizer.decode(whole, skip_special_tokens=True)
    assert continuation(model, tokenizer, "w5 w9 w33") == wanted


def test_windows_are_spread_evenly_over_the_text(workplace: Workplace) -> None:
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    text = " ".join(f"w{i % 60 + 30}" for i in range(80))  # w1 and w2 are special tokens
    settings = EvaluationConfig(sequence_length=8, max_windows=None, behaviour_windows=4)
    chosen = chosen_windows(tokenizer, text, settings)
    assert chosen[:, 0].tolist() == [30, 30 + 16, 30 + 40, 86]
    none = settings.model_copy(update={"behaviour_windows": 0})
    assert chosen_windows(tokenizer, text, none).shape[0] == 0


def test_every_model_is_compared_with_the_dense_one(workplace: Workplace, tmp_path: Path) -> None:
    settings = EvaluationConfig(sequence_length=16, behaviour_windows=3, prompts=("w5 w9",))
    models = {"pruned": workplace.checkpoint}
    compare(workplace.checkpoint, models, workplace.pool, workplace.model, settings, tmp_path)
    found = json.loads((tmp_path / "behaviour.json").read_text())
    made = found["texts"]["made"]
    assert (made["windows"], made["positions"]) == (3, 48)
    assert made["pruned"] == {"agreement": 1.0, "kl": 0.0}
    (said,) = found["continuations"]
    assert said["pruned"] == said["dense"] and said["prompt"] == "w5 w9"
    off = settings.model_copy(update={"behaviour_windows": 0, "prompts": ()})
    compare(workplace.checkpoint, models, workplace.pool, workplace.model, off, tmp_path)
    found = json.loads((tmp_path / "behaviour.json").read_text())
    assert found["texts"] == {} and found["continuations"] == []
