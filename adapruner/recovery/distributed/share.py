"""The part of a training that one process computes, and sums over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class Share(NamedTuple):
    """Process `rank` of `world` that train one model."""

    rank: int
    world: int

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Every `world`-th item, from the one at `rank` on."""
        return items[self.rank :: self.world]

    def total(self, value: float) -> float:
        """The sum of the processes' values, the same bits in all of them."""
        if self.world == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.item()

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors of one data type by the sums over the processes, in one exchange."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


ALONE = Share(0, 1)
"""The share of a process that trains alone."""
