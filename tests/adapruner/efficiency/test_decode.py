"""The timed decode loop generates what Transformers' greedy search generates."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from adapruner.efficiency.decode import decode, synthetic_prompt
from tests.models import BASE, KINDS, small_model


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_is_greedy_generation_without_an_end(kind: str) -> None:
    model = small_model(kind)
    model.generation_config = GenerationConfig()
    prompt = synthetic_prompt(2, 7, BASE["vocab_size"])
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False
    )
    decoded = decode(model, prompt, 6)
    assert torch.equal(decoded.tokens, expected[:, 7:])
    assert decoded.prefill_s > 0 and decoded.decode_s > 0


def test_one_new_token_needs_prefill_only() -> None:
    model = small_model("llama")
    lengths: list[int] = []
    model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: lengths.append(inputs[0].shape[1])
    )
    assert decode(model, synthetic_prompt(3, 5, BASE["vocab_size"]), 1).tokens.shape == (3, 1)
    assert lengths == [5]


def test_decoding_computes_one_token_per_step() -> None:
    model = small_model("llama")
    lengths: list[int] = []
    model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: lengths.append(inputs[0].shape[1])
    )
    decode(model, synthetic_prompt(1, 5, BASE["vocab_size"]), 4)
    assert lengths == [5, 1, 1, 1]


def test_a_synthetic_prompt_has_valid_and_varied_tokens() -> None:
    prompt = synthetic_prompt(2, 40, 96)
    assert prompt.shape == (2, 40) and prompt.dtype == torch.int64
    assert int(prompt.min()) >= 0 and int(prompt.max()) < 96
    assert len(prompt.unique()) > 40
