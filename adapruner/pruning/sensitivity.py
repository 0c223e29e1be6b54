"""What cutting each layer alone costs: the divergence from the dense model, measured once.

Of every layer candidates of several widths are made, each with its output projection updated, and
measured with that candidate alone in the model (see `profile` for what becomes of it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.search.objective import EXPECTED, mean_divergence
from adapruner.pruning.width_profile import REMOVED
from adapruner.progress import announce, track
from adapruner.pruning.reconstruction.least_squares import updated
from adapruner.pruning.gram_matrices import gram
from adapruner.models.structures import layer_modules
from adapruner.evaluation.divergence import likeliest

WINDOWS = 16
"""Windows of the objective text that a candidate is measured on. Divergences from one and the same
model vary little, so these few tell the layers apart."""

WORST = 100.0
"""Nats a token that a candidate counts whose divergence overflows: far beyond any that does not."""


def measure(
    model: Any,
    scores: list[Tensor],
    windows: Tensor,
    grams: Path | None,
    ridge: float,
    known: dict[int, list[float]],
    note: Callable[[int, list[float]], None],
) -> Tensor:
    """[L, len(REMOVED)], nats a token: what the divergence is with one layer cut, on `windows`.

    Of a layer the channels with the lowest of its `scores`, [C], go; what is left is updated by
    `grams`, which `rehearsal.gather` wrote, where there are any. `known` has the losses of layers
    that were measured before; `note` is told each further layer's. The model is left as it was.
    """
    few = windows[:: max(len(windows) // WINDOWS, 1)][:WINDOWS]
    announce(f"layers: each alone at {len(REMOVED)} widths, {few.numel():,} tokens each time")
    expected = likeliest(model, few, EXPECTED)
    losses = dict(known)
    for index, modules in enumerate(track(layer_modules(model), "layers, one by one")):
        if index not in losses:
            products = gram(grams, index) if grams else None
            candidates = _candidates(modules.down, scores[index], products, ridge)
            found = [mean_divergence(model, few, expected) for _ in candidates]
            losses[index] = [loss if math.isfinite(loss) else WORST for loss in found]
            note(index, losses[index])
    return torch.tensor([losses[index] for index in sorted(losses)], dtype=torch.float64)


def _candidates(
    down: nn.Linear, scores: Tensor, gram: Tensor | None, ridge: float
) -> Iterator[None]:
    """Puts one candidate after the other into `down`, with zeros for the columns that are gone."""
    whole = down.weight.detach()
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    try:
        for removed in REMOVED:
            kept = sorted(order[: max(round(len(order) * (1 - removed)), 1)])
            narrow = torch.zeros_like(whole)
            narrow[:, kept] = whole[:, kept] if gram is None else updated(whole, gram, kept, ridge)
            down.weight.data = narrow
            yield
    finally:
        down.weight.data = whole
