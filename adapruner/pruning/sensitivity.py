"""The sensitivity of each layer: the divergence from the dense model when it alone is cut.

For each layer, candidates of several widths are built, each with its updated output projection.
Their divergences are estimated to second order, all from one backward pass of the dense model. A
cut changes the layer's MLP output by d_t = (V - W) x_t at position t, with x_t the input of the
down projection W, and V that projection after the cut. With g_t the gradient, at that output, of
the log-likelihood of next tokens y that are sampled from the dense model,

    KL(dense || cut) = 1/2 E_y[(sum_t g_t . d_t)^2], about 1/2 E_y[sum_t (g_t . d_t)^2].

The matrix E[g g^T] is the Fisher information, the second derivative of the divergence (S. Amari,
Neural Computation 10, 1998). The second form leaves out the products of different positions. They
add more noise than information: see `docs/method.md`. `allocation.width_profile` makes widths of
the estimates.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adapruner.importance.gradients import GradientPass, Loss, Seen, Watched, token_losses
from adapruner.importance.statistics import MICRO_BATCH
from adapruner.models.experts import Expert
from adapruner.models.structures import LayerWidths, describe_model, layer_modules
from adapruner.progress import announce
from adapruner.pruning.allocation.experts import kept_channels
from adapruner.pruning.allocation.width_profile import REMOVED
from adapruner.pruning.updates.gram_matrices import GramMatrices
from adapruner.pruning.updates.update import updated_weight

WINDOWS = 32
"""Windows of the objective text that the divergences are estimated on."""

WORST = 100.0
"""Nats per token: stands for a loss or a divergence that is not a finite number."""


@dataclass(frozen=True, eq=False)
class _Record:
    """Inputs [n, C] of a down projection and gradients at its output [n, hidden].

    They are those of `rows` [n] of a batch's tokens, and of `channels` of the layer: of one expert
    with the tokens that it is chosen for, or of all.
    """

    channels: slice
    rows: Tensor
    inputs: Tensor
    gradients: Tensor


_Batches = list[list[_Record]]


def measure_sensitivity(
    model: Any,
    scores: list[Tensor],
    windows: Tensor,
    grams: GramMatrices | None,
    cached: dict[int, list[float]],
    on_measured: Callable[[int, list[float]], None],
) -> Tensor:
    """float64 [L, len(REMOVED)]: estimated divergence, in nats per token, with one layer cut.

    It is estimated on at most WINDOWS of the `windows`, int [M, T].

    The channels with the lowest of a layer's `scores`, [C], are removed; the rest is updated where
    there are gram matrices. `cached` holds the rows of layers that were measured before;
    `on_measured` is called with each other layer and its row. The model is left unchanged. Raises
    UserError if the model's loss is not finite.
    """
    structures, layers, rows = describe_model(model), layer_modules(model), dict(cached)
    chosen = chosen_windows(windows)
    positions = chosen.shape[0] * (chosen.shape[1] - 1)
    passed = _layers_with_records(model, chosen) if len(rows) < len(layers) else ()
    for index, records in passed:
        if index in rows:
            continue
        whole = layers[index].down.weight.detach()
        gram = grams.of_layer(index, device=whole.device) if grams else None
        ridge = grams.ridge if grams else 0.0
        widths = structures.layers[index]
        candidates = _candidates(whole, widths, scores[index], gram, ridge)
        rows[index] = [_divergence(whole - weight, records, positions) for weight in candidates]
        on_measured(index, rows[index])
    return torch.tensor([rows[index] for index in sorted(rows)], dtype=torch.float64)


def chosen_windows(windows: Tensor) -> Tensor:
    """The windows of a text, int [M, T], that the divergences are estimated on: WINDOWS at most."""
    return windows[:: max(len(windows) // WINDOWS, 1)][:WINDOWS]


def _layers_with_records(model: Any, windows: Tensor) -> Iterator[tuple[int, _Batches]]:
    """Each layer, while it is in memory, and its records for each batch of `windows`, on the CPU.

    Those of all layers are held at once; of a streamed model, those of one.
    """
    announce(f"sensitivity: {windows.numel():,} tokens forward and backward")
    batches = torch.split(windows, MICRO_BATCH)
    held: dict[int, _Batches] = defaultdict(lambda: [[] for _ in batches])

    def record(batch: int, layer: int, _: str, part: Watched, seen: Seen) -> None:
        flat = [x.flatten(0, 1).cpu() for x in (seen.inputs, seen.output_grads)]
        if isinstance(part, Expert):
            rows = part.rows.cpu()
            held[layer][batch].append(_Record(part.channels, rows, *(x[rows] for x in flat)))
        else:
            held[layer][batch].append(_Record(slice(None), torch.arange(len(flat[0])), *flat))

    passed = GradientPass(
        model,
        batches,
        sink_of=lambda batch: partial(record, batch),
        loss_of=_loss_of_sampled,
        names=("down",),
    )
    for index in passed.layers("sensitivity"):
        yield index, held.pop(index)


def _loss_of_sampled(seed: int) -> Loss:
    """The losses of tokens that are sampled from the logits with Gumbel noise, of one batch."""
    generators: dict[torch.device, torch.Generator] = {}

    def loss(logits: Tensor, _: Tensor) -> Tensor:
        device = logits.device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed)
        noise = torch.empty_like(logits).exponential_(generator=generators[device]).log_().neg_()
        return token_losses(logits, (logits.detach() + noise).argmax(-1))

    return loss


def _candidates(
    whole: Tensor, widths: LayerWidths, scores: Tensor, gram: Tensor | None, ridge: float
) -> Iterator[Tensor]:
    """The down projection [hidden, C] at each removed share, zero in the removed columns."""
    for removed in REMOVED:
        count = max(round(widths.mlp_width * (1 - removed)), 1)
        kept = kept_channels(scores, widths, list(range(widths.mlps)), count * widths.mlps)
        narrow = torch.zeros_like(whole)
        narrow[:, kept] = (
            whole[:, kept] if gram is None else updated_weight(whole, gram, kept, ridge)
        )
        yield narrow


def _divergence(removed: Tensor, batches: _Batches, positions: int) -> float:
    """Divergence in nats per token, to second order, with a weight [hidden, C] less `removed`.

    `positions` is the number of predicted tokens.
    """
    change, total = removed.T, 0.0
    for records in batches:
        tokens = 1 + max(int(record.rows.max()) for record in records)
        products = torch.zeros(tokens, device=change.device)
        for record in records:
            changes = record.inputs.to(change.device) @ change[record.channels]
            gradients = record.gradients.to(change.device).float()
            rows = record.rows.to(change.device)
            products.index_add_(0, rows, (changes.float() * gradients).sum(1))
        total += products.square().sum().item()
    divergence = total / (2 * positions)
    return divergence if math.isfinite(divergence) else WORST
