"""Perplexity by its definition."""

from __future__ import annotations

import math

import pytest

from adapruner.evaluation.perplexity import (
    TOKENS_AT_ONCE,
    batches_of,
    mean_loss,
    perplexity,
    windows_of,
)
from tests.models import small_model, tokens


def test_mean_loss_is_the_negative_log_likelihood_per_predicted_token() -> None:
    model, windows = small_model("llama"), tokens(5, 9)
    losses = []
    for row in windows.long():
        log_probs = model(row[None]).logits[0].double().log_softmax(-1)
        losses += [-float(log_probs[i, row[i + 1]]) for i in range(8)]
    mean = sum(losses) / len(losses)
    assert mean_loss(model, windows) == pytest.approx(mean, rel=1e-5)
    assert perplexity(model, windows) == pytest.approx(math.exp(mean), rel=1e-4)


def test_perplexity_that_overflows_is_infinite() -> None:
    model = small_model("llama")
    model.get_output_embeddings().weight.mul_(1e6)
    assert perplexity(model, tokens(2, 8)) == math.inf


def test_windows_do_not_overlap_and_the_remainder_is_dropped() -> None:
    assert windows_of(list(range(11)), 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert windows_of(list(range(11)), 3, max_windows=2).shape == (2, 3)
    assert windows_of([1, 2], 3).shape == (0, 3)


def test_batches_hold_at_most_the_tokens_of_a_forward_pass() -> None:
    batches = batches_of(tokens(50, 128))
    assert sum(map(len, batches)) == 50
    assert max(batch.numel() for batch in batches) == TOKENS_AT_ONCE
    assert [len(batch) for batch in batches_of(tokens(2, TOKENS_AT_ONCE + 1))] == [1, 1]
