"""The gradients of a batch, piece by piece, are those of its loss as a whole."""

from __future__ import annotations

import pytest
import torch

from adapruner.evaluation.divergence import TopLogProbs
from adapruner.recovery.training import backward
from adapruner.recovery.training.backward import add_gradients, pieces, token_loss
from adapruner.recovery.training.examples import IGNORE, Batch, Example, pad
from tests.models import small_model, tokens

LENGTHS = (10, 7, 4)


def batch() -> Batch:
    """Padded examples of LENGTHS; the second one begins with a prompt of four tokens."""
    rows = [row[:n].tolist() for row, n in zip(tokens(3, 10), LENGTHS, strict=True)]
    labels = [list(row) for row in rows]
    labels[1][:4] = [IGNORE] * 4
    return pad([Example(*pair) for pair in zip(rows, labels, strict=True)])


def teacher() -> TopLogProbs:
    """Distributions at all positions of the examples but their last."""
    count = sum(LENGTHS) - len(LENGTHS)
    logits = torch.randn(count, 96, generator=torch.Generator().manual_seed(0))
    top = logits.log_softmax(-1).topk(5)
    return TopLogProbs(top.indices.int(), top.values)


@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize("expected", [None, teacher()], ids=["data", "distill"])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "granite", "qwen3-moe"])
def test_pieces_give_the_loss_and_the_gradients_of_the_whole(
    kind: str, expected: TopLogProbs | None, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backward, "LOGITS_AT_ONCE", size)
    results = []
    for is_whole in (True, False):
        model = small_model(kind).requires_grad_(True)
        if is_whole:
            part = batch()
            output = model(input_ids=part.tokens, attention_mask=part.mask, use_cache=False)
            loss = token_loss(output.logits, part, expected)
            loss.backward()
            value = loss.item()
        else:
            value = add_gradients(model, batch(), expected)
        gradients = {n: w.grad for n, w in model.named_parameters() if w.grad is not None}
        results.append((value, gradients))
    (whole, of_whole), (in_pieces, of_pieces) = results
    assert in_pieces == pytest.approx(whole, rel=1e-5)
    assert of_whole.keys() == of_pieces.keys()
    for name, gradient in of_whole.items():
        torch.testing.assert_close(of_pieces[name], gradient, rtol=1e-4, atol=1e-5)


def test_every_trained_token_is_in_one_piece() -> None:
    parts = pieces(batch(), teacher(), 3)
    assert sum(part.trained for part in parts) == 9 + 3 + 3
    assert all(part.columns.stop - part.columns.start <= 4 for part in parts)
    assert not [part for part in parts if part.row == 1 and part.columns.start == 0]
