"""The normalizer of log-probabilities equals PyTorch's, with its gradient."""

from __future__ import annotations

import pytest
import torch

from adapruner.evaluation import normalizer
from adapruner.evaluation.normalizer import log_sum_exp


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 7, 8, 50])
def test_chunks_of_rows_give_what_all_rows_at_once_give(
    dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalizer, "CHUNK_BYTES", 8 * 4 * 31)  # eight rows of 31 numbers
    logits = (torch.randn(rows, 31, generator=torch.Generator().manual_seed(0)) * 30).to(dtype)
    before = logits.clone()
    expected = torch.logsumexp(logits.float(), -1, keepdim=True)
    torch.testing.assert_close(log_sum_exp(logits), expected)
    assert torch.equal(logits, before)


def test_a_part_of_the_positions_of_each_window_gives_its_part_of_the_values() -> None:
    logits = torch.randn(3, 6, 11, generator=torch.Generator().manual_seed(0))
    expected = log_sum_exp(logits.flatten(0, 1)).view(3, 6, 1)[:, :-1]
    assert torch.equal(log_sum_exp(logits[:, :-1]), expected)


def test_its_gradient_is_the_softmax() -> None:
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    log_sum_exp(logits).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1))


def test_no_rows_give_no_values() -> None:
    assert log_sum_exp(torch.zeros(0, 11)).shape == (0, 1)
    assert log_sum_exp(torch.zeros(0, 6, 11)).shape == (0, 6, 1)
    assert log_sum_exp(torch.zeros(3, 0, 11)).shape == (3, 0, 1)


def test_large_logits_do_not_overflow() -> None:
    assert log_sum_exp(torch.tensor([[3e4, 3e4]])).item() == pytest.approx(3e4 + 0.6931, rel=1e-6)
