"""How wide each layer stays for the lowest loss, from what cutting each layer alone costs.

Layers are nearly independent of each other where little is removed, so the widths with the lowest
sum of losses are found without running a model. (A budget over measured layers as in ZipLM, arXiv
2302.04089, and over candidates of layers as in Tyr-the-Pruner, arXiv 2503.09657; `layer_losses`
measures.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

REMOVED = (0.25, 0.5, 0.75, 0.95)
"""Shares of a layer's channels whose removal is measured."""

AT = (0.0, *((np.array([0.0, *REMOVED[:-1]]) + REMOVED) / 2), REMOVED[-1])
"""Removed shares at which the cost of one more channel is known: middles of what was measured."""

LEAST = 1e-12
"""Nats a token: what keeps two costs of one layer apart."""


class Profile(NamedTuple):
    """`losses` is [L, len(REMOVED)], in nats a token; `share` says how far the widths go from equal
    ones (0) to those with the lowest sum of losses (1)."""

    losses: Tensor
    share: float


def removal(losses: Tensor, sizes: list[int], channels: float) -> Tensor:
    """[n]: the share of its channels that each layer gives, for the lowest sum of losses.

    `losses` is [n, len(REMOVED)] of n layers with `sizes` channels, which give `channels` in all.
    The sum is lowest where one more channel would cost the same in every layer. That cost is taken
    as never falling, and as linear between the middles of the measured stretches.
    """
    costs = [_costs(row.numpy(), size) for row, size in zip(losses.double(), sizes, strict=True)]

    def given(price: float) -> np.ndarray:
        return np.array([np.interp(price, cost, AT) for cost in costs])

    low, high = 0.0, float(max(cost[-1] for cost in costs))
    for _ in range(100):
        price = (low + high) / 2
        low, high = (price, high) if given(price) @ sizes < channels else (low, price)
    return torch.from_numpy(given(high)).clamp_min(1e-9)


def _costs(losses: np.ndarray, size: int) -> np.ndarray:
    """What one more channel costs at each share of `AT`, in nats a token, never falling."""
    slopes = np.diff(losses, prepend=0.0) / np.diff([0.0, *REMOVED]) / size
    slopes = np.maximum.accumulate(np.maximum(slopes, 0.0))
    start = max(slopes[0] - (slopes[1] - slopes[0]) * AT[1] / (AT[2] - AT[1]), 0.0)
    steps = np.arange(len(AT)) * LEAST  # np.interp wants slopes that rise
    costs: np.ndarray = np.array([start, *slopes, 2 * slopes[-1] - slopes[-2]]) + steps
    return costs
