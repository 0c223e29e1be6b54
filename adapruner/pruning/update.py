"""The least-squares update of an output projection whose input channels are cut.

The part of the removed channels' contribution that is linear in the kept channels is moved into the
kept columns. Let X [tokens, channels] be the layer's hidden activations, with kept columns X_k and
removed columns X_r, and let W be split in the same way. The update minimizes

    |X W^T - X_k V^T|^2 + ridge * mean(diag(X^T X)) * |V - W_k|^2

over V, which gives V = W_k + W_r G_rk (G_kk + ridge * mean(diag G) I)^-1 with G = X^T X (the same
least squares as in SlimGPT, arXiv 2412.18110, and OSSCAR, arXiv 2403.12983).
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidates where reconstruction.ridge is not set and there is text to choose on."""

RIDGE = 0.1
"""The ridge where reconstruction.ridge is not set and there is no text to choose on."""


def updated_weight(weight: Tensor, gram: Tensor, kept: list[int], ridge: float) -> Tensor:
    """The kept columns of `weight` [out, C] after the update, [out, kept].

    `gram` is X^T X, float32 [C, C]. The system is solved in float64.
    """
    mask = _mask(weight, kept)
    gram, whole = gram.to(weight.device).double(), weight.double()
    inner = gram[mask][:, mask]
    inner.diagonal().add_(ridge * gram.diagonal().mean().clamp_min(1e-30))
    moved = torch.linalg.solve(inner, gram[mask][:, ~mask] @ whole[:, ~mask].T)
    kept_columns: Tensor = whole[:, mask] + moved.T
    return kept_columns.to(weight.dtype)


def output_error(weight: Tensor, narrow: Tensor, kept: list[int], gram: Tensor) -> float:
    """|X W^T - X_k V^T|^2 with V = `narrow` [out, kept], on the text with X^T X = `gram` [C, C]."""
    change = -weight.float()
    change[:, _mask(weight, kept)] += narrow.float()
    return float(((change @ gram.to(change.device)) * change).sum())


def _mask(weight: Tensor, kept: list[int]) -> Tensor:
    mask = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
    mask[kept] = True
    return mask
