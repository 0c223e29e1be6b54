"""Widths from the sensitivity of each layer: the lowest sum of divergences.

Where little is removed, layers are nearly independent, so the widths with the lowest sum of
sensitivities are computed without running a model. (A budget over measured layers as in ZipLM,
arXiv 2302.04089, and over candidates of layers as in Tyr-the-Pruner, arXiv 2503.09657.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adapruner.pruning.allocation import equal
from adapruner.pruning.allocation.request import AllocationRequest

REMOVED = (0.25, 0.5, 0.75, 0.95)
"""Shares of a layer's channels at whose removal the sensitivity is measured."""

_POINTS = (0.0, *((np.array([0.0, *REMOVED[:-1]]) + REMOVED) / 2), REMOVED[-1])
"""Removed shares at which the marginal cost is estimated: midpoints of the measured intervals."""

_STEP = 1e-12
"""Nats per token: makes the marginal costs of a layer strictly increasing."""


def applies(request: AllocationRequest) -> bool:
    """For recipes with a width profile."""
    return request.sensitivity is not None and request.width_profile > 0


def removal_weights(request: AllocationRequest) -> Tensor:
    """Between equal shares (width_profile 0) and those of the lowest sum (1), float64 [n]."""
    assert request.sensitivity is not None
    lowest = optimal_shares(request.sensitivity, request.sizes, request.channels)
    return torch.lerp(equal.removal_weights(request), lowest, request.width_profile)


def optimal_shares(sensitivity: Tensor, sizes: list[int], channels: float) -> Tensor:
    """float64 [n]: the share of its channels that each layer loses, for the lowest sum.

    `sensitivity` is [n, len(REMOVED)] for n layers of `sizes` channels, from which `channels` are
    removed in all. At the optimum, one more channel costs the same in every layer. The marginal
    cost is taken as non-decreasing, and as linear between the midpoints of the measured intervals.
    """
    rows = zip(sensitivity.double(), sizes, strict=True)
    costs = [_marginal_costs(row.numpy(), size) for row, size in rows]

    def shares(price: float) -> np.ndarray:
        return np.array([np.interp(price, cost, _POINTS) for cost in costs])

    low, high = 0.0, float(max(cost[-1] for cost in costs))
    for _ in range(100):
        price = (low + high) / 2
        low, high = (price, high) if shares(price) @ sizes < channels else (low, price)
    return torch.from_numpy(shares(high)).clamp_min(1e-9)


def _marginal_costs(divergences: np.ndarray, size: int) -> np.ndarray:
    """Cost of one more channel at each of `_POINTS`, in nats per token, non-decreasing."""
    slopes = np.diff(divergences, prepend=0.0) / np.diff([0.0, *REMOVED]) / size
    slopes = np.maximum.accumulate(np.maximum(slopes, 0.0))
    start = max(slopes[0] - (slopes[1] - slopes[0]) * _POINTS[1] / (_POINTS[2] - _POINTS[1]), 0.0)
    steps = np.arange(len(_POINTS)) * _STEP  # np.interp needs increasing x
    costs: np.ndarray = np.array([start, *slopes, 2 * slopes[-1] - slopes[-2]]) + steps
    return costs
