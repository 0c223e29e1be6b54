"""The update of a cut at the cost of a trial: quick, and without changing the model.

Trials must be evaluated as updated models, since the update changes which cut is best. The update
of a final model, layer after layer, costs two passes over the samples for each cut. Here X^T X of
all layers is computed once, in the dense model, and kept on disk; the update of a cut is then one
linear system per layer. On SmolLM2-135M both gave the same perplexity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.models.structures import layer_modules
from adapruner.progress import announce, track
from adapruner.pruning.activations import ActivationStream
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.update import updated_weight


@dataclass(frozen=True)
class GramMatrices:
    """X^T X of the inputs of each layer's `down_proj`, in a folder, and the ridge of the update."""

    folder: Path
    ridge: float

    def of_layer(self, layer: int) -> Tensor:
        """float32 [C, C]."""
        gram: Tensor = load_file(_file(self.folder, layer))["gram"]
        return gram

    def updated_projections(self, model: Any, plan: PruningPlan) -> dict[int, Tensor]:
        """Layer -> its updated down projection, [hidden, kept channels], for layers that are cut.

        `model` is the dense model; the weights have its type and device and are all held at once.
        """
        updated: dict[int, Tensor] = {}
        layers = zip(layer_modules(model), plan.layers, strict=True)
        for index, (modules, kept) in enumerate(layers):
            weight, channels = modules.down.weight.detach(), kept.channels()
            if len(channels) < weight.shape[1]:
                updated[index] = updated_weight(weight, self.of_layer(index), channels, self.ridge)
        return updated


def compute_gram_matrices(model: Any, samples: Tensor, folder: Path, ridge: float) -> GramMatrices:
    """Writes the matrices of the dense `model` to `folder`; `samples` is int [N, T].

    Disk: four bytes for each pair of a layer's channels.
    """
    layers = layer_modules(model)
    size = sum(4 * modules.down.in_features**2 for modules in layers)
    announce(f"gram matrices: {samples.numel():,} tokens, {size / 1e9:.1f} GB on disk")
    stream = ActivationStream(model, samples)
    for index, modules in enumerate(track(layers, "gram matrices")):
        save_file({"gram": stream.gram(modules.down).cpu()}, _file(folder, index))
        stream.advance()
    return GramMatrices(folder, ridge)


def _file(folder: Path, layer: int) -> Path:
    return folder / f"{layer}.safetensors"
