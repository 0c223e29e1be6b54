"""Divergence by its definition, over a whole vocabulary and over the most likely tokens."""

from __future__ import annotations

import math

import pytest
import torch

from adapruner.evaluation.divergence import (
    TopLogProbs,
    divergence,
    split,
    top_log_probs,
    window_divergences,
)
from tests.models import BASE, small_model, tokens

VOCABULARY = BASE["vocab_size"]


@pytest.mark.parametrize("count", [1, 5, VOCABULARY])
def test_the_most_likely_tokens_have_the_models_log_probabilities(count: int) -> None:
    model, windows = small_model("llama"), tokens(3, 7)
    top = top_log_probs(model, windows, count)
    log_probs = model(windows.long()).logits[:, :-1].log_softmax(-1)
    expected = log_probs.topk(count)
    assert top.tokens.shape == (3, 6, count) and top.tokens.dtype == torch.int32
    assert torch.equal(top.tokens.long(), expected.indices)
    torch.testing.assert_close(top.log_probs, expected.values)


def test_more_tokens_than_the_vocabulary_has_are_all_of_them() -> None:
    top = top_log_probs(small_model("llama"), tokens(2, 5), VOCABULARY + 10)
    assert top.tokens.shape[-1] == VOCABULARY


@pytest.mark.parametrize("count", [7, 3])
def test_divergence_counts_all_other_tokens_as_one(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 4, 7, generator=generator).unbind()
    top = teacher.log_softmax(-1).topk(count)
    values = divergence(TopLogProbs(top.indices.int(), top.values), student)
    for row in range(4):
        p, q = teacher[row].softmax(-1).tolist(), student[row].softmax(-1).tolist()
        groups = [(p[token], q[token]) for token in top.indices[row].tolist()]
        if count < 7:
            groups.append((1 - sum(a for a, _ in groups), 1 - sum(b for _, b in groups)))
        expected = sum(a * math.log(a / b) for a, b in groups)
        assert float(values[row]) == pytest.approx(expected, rel=1e-3)


def test_divergence_of_few_tokens_is_a_lower_bound_of_the_full_one() -> None:
    dense, other, windows = small_model("llama"), small_model("llama", seed=1), tokens(4, 8)
    few, many, full = (
        window_divergences(other, windows, top_log_probs(dense, windows, count)).mean()
        for count in (3, 30, VOCABULARY)
    )
    assert 0 < few < many < full


def test_divergence_of_windows_is_the_kl_divergence_per_predicted_token() -> None:
    dense, other, windows = small_model("llama"), small_model("llama", seed=1), tokens(5, 9)
    teacher = top_log_probs(dense, windows, VOCABULARY)
    p = dense(windows.long()).logits[:, :-1].double().log_softmax(-1)
    q = other(windows.long()).logits[:, :-1].double().log_softmax(-1)
    expected = float((p.exp() * (p - q)).sum(-1).mean())
    assert float(window_divergences(other, windows, teacher).mean()) == pytest.approx(
        expected, rel=1e-4
    )
    assert float(window_divergences(dense, windows, teacher).mean()) == pytest.approx(0, abs=1e-5)


def test_batching_does_not_change_the_divergences() -> None:
    dense, other = small_model("llama"), small_model("llama", seed=1)
    windows = tokens(130, 32)  # more tokens than one forward pass takes
    teacher = top_log_probs(dense, windows, 8)
    parts = zip(torch.split(windows, 13), split(teacher, 13), strict=True)
    batched = torch.cat([window_divergences(other, *part) for part in parts])
    torch.testing.assert_close(batched, window_divergences(other, windows, teacher))
