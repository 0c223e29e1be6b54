"""The least-squares update is the minimum of its objective."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adapruner.pruning.updates.update import output_error, updated_weight


def test_update_minimizes_its_objective() -> None:
    torch.manual_seed(0)
    x, weight, kept, ridge = torch.randn(50, 8), torch.randn(5, 8), [0, 2, 3, 6], 0.3
    strength = ridge * (x.T @ x).diagonal().mean()

    def objective(narrow: Tensor) -> Tensor:
        error = (x @ weight.T - x[:, kept] @ narrow.T).square().sum()
        return error + strength * (narrow - weight[:, kept]).square().sum()

    narrow = updated_weight(weight, x.T @ x, kept, ridge).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(narrow), narrow)
    assert gradient.abs().max() < 1e-3 * objective(narrow)
    assert objective(narrow) < objective(weight[:, kept])


def test_output_error_is_the_squared_error_of_the_outputs() -> None:
    torch.manual_seed(0)
    x, weight, kept = torch.randn(50, 8), torch.randn(5, 8), [1, 4, 5]
    narrow = torch.randn(5, 3)
    expected = float((x @ weight.T - x[:, kept] @ narrow.T).square().sum())
    assert output_error(weight, narrow, kept, x.T @ x) == pytest.approx(expected, rel=1e-4)


def test_update_is_exact_for_channels_of_very_different_sizes() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 64).double() * torch.logspace(-3, 2, 64).double()
    weight, kept, ridge = torch.randn(16, 64), list(range(0, 64, 2)), 1e-2
    gram, removed = x.T @ x, [c for c in range(64) if c not in kept]
    inner = gram[kept][:, kept] + ridge * gram.diagonal().mean() * torch.eye(32)
    moved = torch.linalg.solve(inner, gram[kept][:, removed] @ weight[:, removed].T.double())
    narrow = updated_weight(weight, gram.float(), kept, ridge)
    torch.testing.assert_close(narrow, (weight[:, kept] + moved.T).float(), rtol=1e-4, atol=1e-4)


def test_update_of_channels_that_are_copies_of_each_other_is_finite_and_exact() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 4).repeat(1, 32)  # rank 4: indefinite in float32
    weight, kept = torch.randn(8, 128), list(range(64))
    narrow = updated_weight(weight, x.T @ x, kept, ridge=1e-9)
    torch.testing.assert_close(x[:, kept] @ narrow.T, x @ weight.T, rtol=1e-2, atol=0.05)
