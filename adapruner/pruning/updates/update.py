"""The least-squares update of an output projection whose input channels are cut.

The part of the removed channels' contribution that is linear in the kept channels is moved into the
kept columns. Let X [tokens, channels] be the layer's hidden activations, with kept columns X_k and
removed columns X_r, and let W be split in the same way. The update minimizes

    |X W^T - X_k V^T|^2 + ridge * mean(diag(X^T X)) * |V - W_k|^2

over V, which gives V = W_k + W_r G_rk (G_kk + ridge * mean(diag G) I)^-1 with G = X^T X (the same
least squares as in SlimGPT, arXiv 2412.18110, and OSSCAR, arXiv 2403.12983).

Experts are updated one by one, each on the tokens that it is chosen for, with its weights by the
router in X.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import torch
from torch import Tensor

from adapruner.models.experts import separate

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidates where reconstruction.ridge is not set and there is text to choose on."""

RIDGE = 0.1
"""The ridge where reconstruction.ridge is not set and there is no text to choose on."""

RANK_TOLERANCE = 1e-5
"""Eigenvalues below this share of the largest one are rounding errors."""


def updated_weight(weight: Tensor, gram: Tensor, kept: list[int], ridge: float) -> Tensor:
    """The kept columns of `weight` [out, C] after the update, [out, kept].

    `gram` is X^T X, float32 [C, C]; of E experts, whose columns follow one another in `weight`, it
    is that of each, [E, C / E, C / E]. The system is solved by a Cholesky decomposition in float32,
    scaled to a unit diagonal because the sizes of channels differ by orders of magnitude.
    """
    if gram.dim() == 3:
        blocks = _by_expert(weight, kept, gram)
        return torch.cat([updated_weight(w, part, own, ridge) for w, part, own in blocks], 1)
    inside, outside = _indices(weight, kept)
    whole, gram = weight.float(), gram.to(weight.device)
    rows = gram.index_select(0, inside)
    inner = rows.index_select(1, inside)
    inner.diagonal().add_(ridge * gram.diagonal().mean().clamp_min(1e-30))
    target = rows.index_select(1, outside) @ whole.index_select(1, outside).T
    moved = _solve(inner, target)
    kept_columns: Tensor = whole.index_select(1, inside) + moved.T
    return kept_columns.to(weight.dtype)


def output_error(weight: Tensor, narrow: Tensor, kept: list[int], gram: Tensor) -> float:
    """|X W^T - X_k V^T|^2 with V = `narrow` [out, kept], on the text with X^T X = `gram` [C, C].

    Of experts it is the sum of the errors of each, with `gram` as for `updated_weight`.
    """
    change = -weight.float()
    change[:, _indices(weight, kept)[0]] += narrow.float()
    if gram.dim() == 3:
        change = separate(change, len(gram))
    return float(((change @ gram.to(change.device)) * change).sum())


def _by_expert(
    weight: Tensor, kept: list[int], gram: Tensor
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """The columns of each expert that keeps any, their X^T X, and the kept ones among them.

    `kept` is ascending.
    """
    size = gram.shape[-1]
    for index, part in enumerate(gram):
        start = index * size
        first, end = bisect_left(kept, start), bisect_left(kept, start + size)
        own = [channel - start for channel in kept[first:end]]
        if own:
            yield weight[:, start : start + size], part, own


def _solve(matrix: Tensor, target: Tensor) -> Tensor:
    """`matrix`^-1 `target` of a positive definite matrix.

    A ridge below the rounding errors leaves it singular: then it is the shortest solution.
    """
    scale = matrix.diagonal().rsqrt().unsqueeze(1)
    factor, failed = torch.linalg.cholesky_ex(matrix * scale * scale.T)
    if failed:
        inverse: Tensor = torch.linalg.pinv(matrix, rtol=RANK_TOLERANCE, hermitian=True)
        return inverse @ target
    return scale * torch.cholesky_solve(scale * target, factor)


def _indices(weight: Tensor, kept: list[int]) -> tuple[Tensor, Tensor]:
    """The kept and the removed columns of `weight`."""
    mask = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
    mask[kept] = True
    return mask.nonzero().flatten(), (~mask).nonzero().flatten()
