"""The update of a cut as a trial needs it: quick, and leaving the model as it is.

What the trials tell apart is only worth something if they see the models that would be shipped, and
the update changes which cut is best. Layer after layer, as in `reconstruction`, it costs two passes
over the samples for each cut. Here the statistics of all layers are taken once, in the dense model,
and lie on disk; a cut costs one system of linear equations a layer. On SmolLM2-135M both gave the
same perplexity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.pruning.plan import PruningPlan
from adapruner.progress import announce, track
from adapruner.pruning.reconstruction.least_squares import Stream, updated
from adapruner.models.structures import layer_modules


def gather(model: Any, samples: Tensor, out: Path) -> None:
    """Writes X^T X of what goes into each layer's `down_proj`, float32 [C, C], to the folder `out`.

    `samples`, int [N, T], is text to calibrate on.
    """
    layers = layer_modules(model)
    size = sum(4 * modules.down.in_features**2 for modules in layers)
    announce(f"layers: {samples.numel():,} tokens through each, {size / 1e9:.1f} GB on disk meanwhile")
    stream = Stream(model, samples)
    for index, modules in enumerate(track(layers, "layers")):
        save_file({"gram": stream.gram(modules.down).cpu()}, _file(out, index))
        stream.advance()


def gram(folder: Path, layer: int) -> Tensor:
    """What `gather` wrote of a layer."""
    found: Tensor = load_file(_file(folder, layer))["gram"]
    return found


def updates(model: Any, folder: Path | None, ridge: float, plan: PruningPlan) -> dict[int, Tensor]:
    """By layer that `plan` cuts: its down projection after the update, [hidden, kept channels].

    `folder` is what `gather` wrote for `model`; None for no update. The weights are of the type
    and on the device of the model's, and all are held at once.
    """
    found: dict[int, Tensor] = {}
    if folder is None:
        return found
    for index, (modules, kept) in enumerate(zip(layer_modules(model), plan.layers, strict=True)):
        weight, channels = modules.down.weight.detach(), kept.channels()
        if len(channels) < weight.shape[1]:
            found[index] = updated(weight, gram(folder, index), channels, ridge)
    return found


def _file(folder: Path, layer: int) -> Path:
    return folder / f"{layer}.safetensors"
