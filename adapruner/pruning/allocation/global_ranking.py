"""The channels with the lowest scores are removed, whichever layer they are in."""

from __future__ import annotations

import torch
from torch import Tensor

from adapruner.pruning.allocation.request import AllocationRequest


def applies(request: AllocationRequest) -> bool:
    """For metrics whose scores are comparable across layers."""
    return request.comparable


def removal_weights(request: AllocationRequest) -> Tensor:
    """Each layer's share of the channels with the lowest scores of all layers, float64 [n]."""
    sizes = torch.tensor(request.sizes)
    owners = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    order = torch.sort(torch.cat(request.scores), stable=True).indices
    removed = torch.bincount(owners[order[: round(request.channels)]], minlength=len(sizes))
    return (removed / sizes).double().clamp_min(1e-9)
