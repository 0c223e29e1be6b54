"""Training of gates: which structures the frozen model needs, under a budget of parameters.

The loss of a step is CE + penalty * |log(P / P*)|: the cross-entropy of a few windows of the pool's
update text with the sampled gates, and how far their parameters P are from the P* that the target
leaves (DISP-LLM, arXiv 2410.11988). P is a polynomial of the gates' sums, so both terms have
gradients for the gates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapruner.config.gates import GatesConfig
from adapruner.errors import UserError
from adapruner.models.residual import SUBSETS, subset_params
from adapruner.models.structures import LayerWidths, Structures
from adapruner.progress import announce, track
from adapruner.pruning.masks import CHANNELS, Masks, masked
from adapruner.search.gates.hypernetwork import Hypernetwork, Logits, Sizes, sample_gates


@dataclass(frozen=True)
class TrainedGates:
    """The final logits; of each step, the cross-entropy in nats and P / P*."""

    logits: Logits
    losses: list[float]
    ratios: list[float]


@dataclass(frozen=True)
class Budget:
    """The parameters that the projections of all layers have and may keep (P*)."""

    structures: Structures
    kept: int

    def params(self, gates: Sequence[Masks]) -> Tensor:
        """P, float64: parameters of all projections with these gates, exact for 0 and 1."""
        total = torch.zeros((), dtype=torch.float64)
        for dense, own in zip(self.structures.layers, gates, strict=True):
            counts = {
                kind: own[kind].double().sum() if kind in own else total.new_tensor(size)
                for kind, size in self.whole(dense).items()
            }
            total = total + subset_params(self.structures, dense, counts.pop(CHANNELS), counts)
        return total

    def layer_params(self, dense: LayerWidths, sizes: Sizes) -> int:
        """Parameters of one layer's projections with these numbers of gates open, others whole."""
        counts = {**self.whole(dense), **sizes}
        return subset_params(self.structures, dense, counts.pop(CHANNELS), counts)

    def whole(self, dense: LayerWidths) -> dict[str, int]:
        """All gates that a layer can have, by kind."""
        return dict.fromkeys(SUBSETS, self.structures.hidden_size) | {CHANNELS: dense.mlp_channels}

    def excess(self, gates: Sequence[Masks]) -> Tensor:
        """log(P / P*), float64."""
        return (self.params(gates) / self.kept).log()


def train_gates(
    model: Any,
    windows: Tensor,
    layers: Sequence[Sizes],
    budget: Budget,
    settings: GatesConfig,
    seed: int,
) -> TrainedGates:
    """Trains the gates of `layers` on `windows`, int [U, T]; the weights of `model` stay frozen.

    The same seed gives the same gates. Raises UserError, with the step, at the first loss that is
    not finite.
    """
    noise = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Hypernetwork(layers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    gates = sum(size for sizes in layers for size in sizes.values())
    announce(
        f"gates: {gates:,} gates, {settings.steps} steps of {settings.batch_size} x "
        f"{windows.shape[1]} tokens"
    )
    losses, ratios = [], []
    order = _batches(len(windows), settings.batch_size, noise)
    start = time.perf_counter()
    for step in track(range(1, settings.steps + 1), "gates"):
        sampled = sample_gates(network(), settings.temperature, noise)
        loss, excess = _loss(model, windows[next(order)], sampled), budget.excess(sampled)
        total = loss + settings.penalty * excess.abs()
        if not torch.isfinite(total):
            raise UserError(
                f"the loss of step {step} of the gates is {total.item()}; lower "
                f"search.gates.learning_rate ({settings.learning_rate:g}) or use dtype: float32"
            )
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        ratios.append(excess.exp().item())
        if step == 2:  # the first one is slower
            seconds = (time.perf_counter() - start) / 2
            in_all = seconds * settings.steps
            announce(f"gates: {seconds:.1f} s a step, about {in_all:.0f} s in all")
    with torch.no_grad():
        return TrainedGates(network(), losses, ratios)


def _loss(model: Any, batch: Tensor, gates: Logits) -> Tensor:
    """Mean cross-entropy in nats of the windows `batch`, int [B, T], with these gates."""
    tokens = batch.to(model.get_input_embeddings().weight.device).long()
    with masked(model, gates):
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits.float(), tokens[:, 1:].flatten().to(logits.device)).cpu()


def _batches(count: int, size: int, noise: torch.Generator) -> Iterator[Tensor]:
    """Indices of windows: every window once, in a random order, before any is repeated."""
    while True:
        yield from torch.split(torch.randperm(count, generator=noise), size)
