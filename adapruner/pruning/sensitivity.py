"""The sensitivity of each layer: the divergence from the dense model when it alone is cut.

For each layer, candidates of several widths are built, each with its updated output projection, and
evaluated with that candidate alone in the model. `allocation.width_profile` makes widths of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.evaluation.divergence import TopLogProbs, mean_divergence, top_log_probs
from adapruner.models.structures import LayerModules, layer_modules
from adapruner.progress import announce, track
from adapruner.pruning.allocation.width_profile import REMOVED
from adapruner.pruning.gram_matrices import GramMatrices
from adapruner.pruning.update import RIDGE, updated_weight

WINDOWS = 16
"""Windows of the objective text that a candidate is evaluated on. Divergences from one model vary
little, so that these are enough to compare layers."""

TOP_K = 64
"""Tokens kept of each of the dense model's distributions."""

WORST = 100.0
"""Nats per token: stands for a divergence that overflows."""


def measure_sensitivity(
    model: Any,
    scores: list[Tensor],
    windows: Tensor,
    grams: GramMatrices | None,
    cached: dict[int, list[float]],
    on_measured: Callable[[int, list[float]], None],
) -> Tensor:
    """float64 [L, len(REMOVED)]: divergence in nats per token with one layer cut, on `windows`.

    The channels with the lowest of a layer's `scores`, [C], are removed; the rest is updated where
    there are gram matrices. `cached` holds the rows of layers that were measured before;
    `on_measured` is called with each other layer and its row. The model is left unchanged.
    """
    chosen = windows[:: max(len(windows) // WINDOWS, 1)][:WINDOWS]
    announce(f"sensitivity: each layer at {len(REMOVED)} widths, {chosen.numel():,} tokens each")
    teacher = top_log_probs(model, chosen, TOP_K)
    rows = dict(cached)
    for index, modules in enumerate(track(layer_modules(model), "sensitivity")):
        if index not in rows:
            gram = grams.of_layer(index) if grams else None
            ridge = RIDGE
            candidates = _candidates(modules, scores[index], gram, ridge)
            rows[index] = [
                _divergence_with(model, modules.down, weight, chosen, teacher)
                for weight in candidates
            ]
            on_measured(index, rows[index])
    return torch.tensor([rows[index] for index in sorted(rows)], dtype=torch.float64)


def _candidates(
    modules: LayerModules, scores: Tensor, gram: Tensor | None, ridge: float
) -> Iterator[Tensor]:
    """The down projection [hidden, C] at each removed share, zero in the removed columns."""
    whole = modules.down.weight.detach()
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    for removed in REMOVED:
        kept = sorted(order[: max(round(len(order) * (1 - removed)), 1)])
        narrow = torch.zeros_like(whole)
        narrow[:, kept] = (
            whole[:, kept] if gram is None else updated_weight(whole, gram, kept, ridge)
        )
        yield narrow


def _divergence_with(
    model: Any, down: nn.Linear, weight: Tensor, windows: Tensor, teacher: TopLogProbs
) -> float:
    """Mean divergence in nats per token with `weight` in place of the projection's own."""
    with _replaced(down, weight):
        divergence = mean_divergence(model, windows, teacher)
    return divergence if math.isfinite(divergence) else WORST


@contextmanager
def _replaced(linear: nn.Linear, weight: Tensor) -> Iterator[None]:
    whole = linear.weight.data
    linear.weight.data = weight
    try:
        yield
    finally:
        linear.weight.data = whole
