"""Widths from the importance fluctuation of each layer's MLP (SAAP, arXiv 2412.15127).

SAAP prunes the modules whose importance differs most between samples; its code and the rule that
makes widths of the indicator are not published. Here each layer loses a share of its channels that
is proportional to the indicator, or with `pruning.fluctuation: keep_unstable` to its inverse. FLAP
(arXiv 2312.11983) keeps what fluctuates: there, of the inputs of a channel.
"""

from __future__ import annotations

from torch import Tensor

from adapruner.pruning.allocation.request import AllocationRequest

_LEAST = 1e-9
"""Stands for the fluctuation of a layer whose importance is the same for all samples."""


def applies(request: AllocationRequest) -> bool:
    """With `pruning.allocation: fluctuation`."""
    return request.fluctuation is not None


def removal_weights(request: AllocationRequest) -> Tensor:
    """Proportional to the fluctuation, or to its inverse, float64 [n]."""
    assert request.fluctuation is not None
    return by_fluctuation(request.fluctuation, request.keep_unstable)


def by_fluctuation(fluctuation: Tensor, keep_unstable: bool) -> Tensor:
    """float64 [n]: the share that each module loses, with the mean 1."""
    values = fluctuation.double().clamp_min(_LEAST)
    weights = 1 / values if keep_unstable else values
    return weights / weights.mean()
