"""Sums over weights and over the weight gradients of single samples, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from adapruner.importance.gradients import Watched

NUMBERS = 2**19
"""Numbers of a weight or its gradient that a CPU reduces at once: they stay in its cache."""

NUMBERS_OF_DEVICE = 2**24
"""The same on other devices, where each operation has a cost of its own."""


def products(
    module: Watched, inputs: Tensor, grads: Tensor, rows: int, by_column: bool
) -> Iterator[tuple[slice, Iterator[Tensor]]]:
    """Some units of a projection, and for each sample their weights times the weights' gradient.

    `inputs` [B, T, in] and output gradients `grads` [B, T, out] are those of a batch. A unit is
    `rows` rows of the weight, or columns if `by_column`. The products are [units * rows, numbers],
    float32, one row or column of the weight a row; a bias is one more number.
    """
    weight = module.weight.T if by_column else module.weight
    left, right = (inputs, grads) if by_column else (grads, inputs)
    bias = None if by_column else module.bias
    step = _rows_at_once(weight, rows)
    for start in range(0, len(weight), step):
        some = slice(start, start + step)
        factor = _with_bias(weight[some].float(), None if bias is None else bias[some])
        units = slice(start // rows, start // rows + len(factor) // rows)
        yield units, _of_samples(left[..., some], right, factor, bias is not None)


def column_sums(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of the magnitudes and of the squares in each column of `weight`, float32."""
    magnitudes = torch.zeros(weight.shape[1], device=weight.device)
    squares = magnitudes.clone()
    for some in torch.split(weight, _rows_at_once(weight, 1)):
        values = some.float()
        magnitudes += values.abs().sum(0)
        squares += values.square().sum(0)
    return magnitudes, squares


def _rows_at_once(weight: Tensor, rows: int) -> int:
    """A multiple of `rows`."""
    at_once = NUMBERS if weight.device.type == "cpu" else NUMBERS_OF_DEVICE
    return max(at_once // (weight.shape[1] * rows), 1) * rows


def _of_samples(left: Tensor, right: Tensor, factor: Tensor, has_bias: bool) -> Iterator[Tensor]:
    for output, other in zip(left, right, strict=True):
        gradient = (output.T @ other).float()
        if has_bias:
            gradient = _with_bias(gradient, output.float().sum(0))
        yield gradient.mul_(factor)


def _with_bias(rows: Tensor, bias: Tensor | None) -> Tensor:
    """The rows, contiguous, with a last column for the bias if there is one."""
    if bias is None:
        return rows.contiguous()
    return torch.cat([rows, bias.float().unsqueeze(1)], 1)


def unit_sums(product: Tensor, rows: int, order: int) -> Tensor:
    """[units] on the CPU: the sum of |product|^order over the `rows` rows of each unit."""
    norms: Tensor = torch.linalg.vector_norm(
        product.view(-1, rows * product.shape[1]), order, dim=1
    )
    return norms.pow(order).cpu()
