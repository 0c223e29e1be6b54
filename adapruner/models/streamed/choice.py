"""Whether a model is loaded as a whole or streamed."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch

from adapruner.config import DeviceConfig
from adapruner.errors import UserError
from adapruner.models.families import family_of
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage.weights import tensor_places
from adapruner.models.streamed.layers import stream_model
from adapruner.models.streamed.memory import available_on
from adapruner.progress import announce

GIB = 2**30

ROOM = 0.9
"""Of the available memory, what weights and gradients may take; the rest is for activations."""


class Sizes(NamedTuple):
    """Bytes: weights in the layers and others, the largest layer, gradients held at once."""

    layers: int
    others: int
    layer: int
    gradients: int

    @property
    def whole(self) -> int:
        """In memory at once, without activations."""
        return self.layers + self.others + self.gradients

    @property
    def streamed(self) -> int:
        """The same with two layers: one that computes, and one that is read meanwhile."""
        return 2 * self.layer + self.others + self.gradients


def load_or_stream(
    checkpoint: Path, model: DeviceConfig, reads: str, dtype: torch.dtype | None = None
) -> Any:
    """`load_model`, or a model whose layers are read when they are needed, see `layers`.

    `model.streaming` decides; with auto, a model whose weights and gradients do not fit in the
    memory that is available is streamed, and a line says so with `reads`, such as "2 reads".
    Raises UserError for a checkpoint with an adapter that is to be streamed.
    """
    used = dtype or getattr(torch, ckpt.compute_dtype(model))
    has_adapter = (checkpoint / ckpt.BRANCH).is_dir()
    if model.streaming is False or (model.streaming == "auto" and has_adapter):
        return ckpt.load_model(checkpoint, model, dtype)
    if has_adapter:
        raise UserError(
            f"model.streaming: '{checkpoint}' has an adapter, which can't be streamed; set it to "
            "auto or false"
        )
    sizes, device = sizes_of(checkpoint, used), ckpt.device_of(model)
    available = available_on(device, all_devices=model.device == "auto")
    if model.streaming == "auto" and sizes.whole <= ROOM * available:
        return ckpt.load_model(checkpoint, model, dtype)
    announce(
        f"streaming: the model needs {sizes.whole / GIB:.2f} GiB, {available / GIB:.2f} GiB are "
        f"available; with one layer at a time it needs {sizes.streamed / GIB:.2f} GiB and the "
        f"activations, and {reads} of all layers, {sizes.layers / GIB:.2f} GiB each"
    )
    return stream_model(checkpoint, device, used)


def sizes_of(checkpoint: Path, dtype: torch.dtype) -> Sizes:
    """The sizes of a checkpoint's model in `dtype`, from its config and the files' headers."""
    config = ckpt.read_config(checkpoint)
    prefix = f"{family_of(config.model_type, config.architectures).layers}."
    of_layer: dict[str, int] = {}
    others = largest = 0
    for name, (_, (_, _, shape)) in tensor_places(checkpoint).items():
        size = prod(shape)
        if name.startswith(prefix):
            index = name.removeprefix(prefix).partition(".")[0]
            of_layer[index] = of_layer.get(index, 0) + size
            largest = max(largest, size)
        else:
            others += size
    layers = sum(of_layer.values())
    item, gradients = dtype.itemsize, 3 * torch.float32.itemsize * largest
    return Sizes(item * layers, item * others, item * max(of_layer.values()), gradients)
