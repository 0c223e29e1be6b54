"""Every layer loses the same share of its channels."""

from __future__ import annotations

import torch
from torch import Tensor

from adapruner.pruning.allocation.request import AllocationRequest


def applies(request: AllocationRequest) -> bool:
    """Always: the default."""
    return True


def removal_weights(request: AllocationRequest) -> Tensor:
    """The same share for all layers, float64 [n]."""
    sizes = request.sizes
    return torch.full((len(sizes),), request.channels / sum(sizes), dtype=torch.float64)
