"""The least-squares update is the minimum of its objective."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adapruner.pruning.update import output_error, updated_weight


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
