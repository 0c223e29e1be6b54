"""X^T X of the inputs X of each layer's `down_proj`, by domain: what the update is computed from.

The matrices are sums over tokens, so those of any mix of the domains are a weighted sum of theirs.
They are computed once, in one pass over the update samples through the dense model. The update of
any cut on any mix is then one linear system per layer, without a pass over the model: trials are
updated in this way. The final model is updated layer after layer, see `reconstruction`.

Of experts there is a matrix each, of the tokens that the expert is chosen for.

Storage: float16 after both sides are divided by the root mean square of each channel. Of the
symmetric matrices, the rows up to the diagonal are stored in `STRIPS` parts: about two bytes for
each domain and unordered pair of a layer's channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.models.streamed.layers import in_order, is_streamed
from adapruner.models.structures import LayerModules, layer_modules
from adapruner.progress import announce, track
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.updates.activations import ActivationStream, gram_shape
from adapruner.pruning.updates.update import RIDGE, updated_weight

STRIPS = 16
"""Parts of the rows of a matrix, each stored up to its last column on the diagonal."""


@dataclass(frozen=True)
class GramMatrices:
    """The matrices in a folder, one file per layer; `ridge` is for plans without one."""

    folder: Path
    ridge: float = RIDGE

    def of_layer(
        self, layer: int, shares: Sequence[float] = (), device: torch.device | str = "cpu"
    ) -> Tensor:
        """The mean of x x^T over the tokens of a mix of the domains, float32 [C, C] or [E, C, C].

        `shares` are the weights of the domains; where empty, every sample has the same weight. The
        matrices of the domains are read and added on `device` one by one.
        """
        stored = load_file(_file(self.folder, layer))  # mapped: a domain without weight is not read
        scale = stored["scale"].to(device)
        weights = torch.tensor(shares) if shares else stored["samples"].float()
        weights = weights / weights.sum()
        total = torch.empty(*scale.shape, scale.shape[-1], device=device)
        for rows in _strips(scale.shape[-1]):
            before = slice(0, rows.start)
            part = total[..., rows, : rows.stop].zero_()
            for weight, matrix in zip(weights.tolist(), stored[_name(rows)], strict=True):
                if weight:
                    part.add_(matrix.to(device), alpha=weight)
            part.mul_(scale[..., : rows.stop].unsqueeze(-2)).mul_(scale[..., rows].unsqueeze(-1))
            total[..., before, rows] = part[..., before].transpose(-1, -2)
        return total

    def updated_projections(self, model: Any, plan: PruningPlan) -> Mapping[int, Tensor]:
        """Layer -> its updated down projection, [hidden, kept channels], for layers that are cut.

        `model` is the dense model; the weights have its type and device. They are all held at once,
        but those of a streamed model are computed while the layer is in memory, and held one by
        one.
        """
        updates = _Updates(self, layer_modules(model), plan)
        return updates if is_streamed(model) else dict(updates)


class _Updates(Mapping[int, Tensor]):
    """Updated down projections by layer, each computed when it is requested; the last is kept."""

    def __init__(
        self, grams: GramMatrices, layers: Sequence[LayerModules], plan: PruningPlan
    ) -> None:
        self._grams, self._layers, self._plan = grams, layers, plan
        self._kept = [layer.channels() for layer in plan.layers]
        self._last: tuple[int, Tensor] | None = None

    def __getitem__(self, layer: int) -> Tensor:
        if not self._is_cut(layer):
            raise KeyError(layer)
        if self._last is None or self._last[0] != layer:
            weight, update = self._layers[layer].down.weight.detach(), self._plan.update
            gram = self._grams.of_layer(layer, update.shares, weight.device)
            ridge = update.ridge or self._grams.ridge
            self._last = (layer, updated_weight(weight, gram, self._kept[layer], ridge))
        return self._last[1]

    def __iter__(self) -> Iterator[int]:
        return (layer for layer in range(len(self._layers)) if self._is_cut(layer))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _is_cut(self, layer: int) -> bool:
        return len(self._kept[layer]) < self._layers[layer].down.in_features


def compute_gram_matrices(
    model: Any, samples: Tensor, domain: Tensor, folder: Path
) -> GramMatrices:
    """Writes the matrices of the dense `model` to `folder`.

    `samples` is int [U, T], `domain` [U] the index of each sample's domain. Memory: beside the
    model, one hidden state per token, and the matrices of one layer in float32.
    """
    layers, count = layer_modules(model), int(domain.max()) + 1
    size = sum(count * stored_bytes(gram_shape(modules.down)) for modules in layers)
    announce(
        f"gram matrices: {samples.numel():,} tokens forward, {count} domains, "
        f"{size / 1e9:.1f} GB on disk"
    )
    sizes = torch.bincount(domain, minlength=count)
    streams = [ActivationStream(model, samples[domain == index]) for index in range(count)]
    for index in track(in_order(model), "gram matrices", len(layers)):
        down = layers[index].down
        sums = torch.stack([stream.advance_with_gram(down) for stream in streams])
        tokens = (sizes * samples.shape[1]).view(-1, *[1] * (sums.dim() - 1))
        means = sums / tokens.to(sums.device)
        save_file({**_stored(means), "samples": sizes}, _file(folder, index))
    return GramMatrices(folder)


def stored_bytes(shape: tuple[int, ...]) -> int:
    """Bytes on disk of a matrix [C, C], or of matrices [E, C, C], of one domain."""
    numbers: int = sum((rows.stop - rows.start) * rows.stop for rows in _strips(shape[-1]))
    return 2 * prod(shape[:-2]) * numbers


def _stored(means: Tensor) -> dict[str, Tensor]:
    """`means`, [domains, ..., C, C], divided on both sides by `scale` [..., C], in float16."""
    squares = means.diagonal(dim1=-2, dim2=-1).mean(0)
    scale = squares.clamp_min(1e-30).sqrt()
    stored = {"scale": scale.cpu()}
    for rows in _strips(scale.shape[-1]):
        part = means[..., rows, : rows.stop] / scale[..., rows].unsqueeze(-1)
        stored[_name(rows)] = (part / scale[..., : rows.stop].unsqueeze(-2)).half().cpu()
    return stored


def _strips(width: int) -> list[slice]:
    """The rows of each part of a matrix of `width` rows."""
    height = -(-width // STRIPS)
    return [slice(start, min(start + height, width)) for start in range(0, width, height)]


def _name(rows: slice) -> str:
    return f"rows.{rows.start:07d}"


def _file(folder: Path, layer: int) -> Path:
    return folder / f"gram.{layer:04d}.safetensors"
