"""A linear layer in 4 bit whose low-rank update moves the minimum of each group.

With the pooled input p, the sum of x over the columns of each group, the update B A p of QA-LoRA
(arXiv 2309.14717) is that of a weight which is constant within a group. So it equals the move of
the minimum by B A, which the layer applies before it dequantises: m' = m + scale B A.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapruner.models.groups import Groups

ADAPTERS = ("a", "b")
"""Names of the weights of a layer that are trained."""


class GroupedLinear(nn.Module):
    """Computes x W^T + b with W = d q + m', m' = m + `scale` B A rounded to float16.

    A is [rank, groups], B [out, rank], both float32; B begins with zeros. The gradient passes the
    rounding unchanged, so that what is trained is what is stored. The dense weight exists only
    while the layer computes.
    """

    def __init__(self, groups: Groups, bias: Tensor | None, rank: int, scale: float) -> None:
        super().__init__()
        rows, count = groups.step.shape
        self.codes, self.step, self.minimum = map(
            nn.Buffer, (groups.codes, groups.step, groups.minimum)
        )
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.scale = scale
        device = groups.codes.device
        self.a = nn.Parameter(torch.empty(rank, count, device=device))
        self.b = nn.Parameter(torch.zeros(rows, rank, device=device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """From [..., in] to [..., out]."""
        minimum = self.minimum.float() + self.scale * (self.b @ self.a)
        output: Tensor = _GroupedProduct.apply(  # type: ignore[no-untyped-call]
            x, minimum, self.codes, self.step
        )
        return output if self.bias is None else output + self.bias

    @torch.no_grad()
    def merged(self) -> Groups:
        """The groups with the trained minimum."""
        plain = Groups(self.codes, self.step, self.minimum)
        return plain.moved(self.minimum.float() + self.scale * (self.b @ self.a))


class _GroupedProduct(torch.autograd.Function):
    """x W^T, which keeps x for the gradient and dequantises W once more in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, minimum: Tensor, codes: Tensor, step: Tensor) -> Tensor:
        groups = Groups(codes, step, minimum.half())
        ctx.save_for_backward(x, groups.minimum, codes, step)
        return F.linear(x, groups.dense().to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, minimum, codes, step = ctx.saved_tensors
        groups = Groups(codes, step, minimum)
        of_x = of_minimum = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ groups.dense().to(x.dtype)
        if ctx.needs_input_grad[1]:
            pooled = x.unflatten(-1, (-1, groups.size)).sum(-1, dtype=torch.float32)
            of_minimum = gradient.flatten(0, -2).float().T @ pooled.flatten(0, -2)
        return of_x, of_minimum, None, None
