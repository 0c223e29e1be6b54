"""A model in memory without its decoder layers, which are read when they are needed.

The modules are those of the stock model. The parameters of its layers are on the meta device but
for the layer that runs; embeddings, the last norm and the head stay in memory. Any forward pass is
right: a layer whose weights are not in memory reads them and drops them. Passes that run one layer
on all their batches before the next, see `passes`, read each layer once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import revert_weight_conversion

from adapruner.models.families import family_of
from adapruner.models.storage.checkpoint import read_config
from adapruner.models.storage.weights import read_tensor, tensor_places
from adapruner.models.streamed.memory import return_freed_memory

_SOURCE = "layer_source"
"""The attribute of a streamed model that holds its `LayerSource`."""

Weights = dict[str, Tensor]


def stream_model(checkpoint: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The causal language model of a checkpoint, in eval mode and frozen, without its layers.

    Layers are computed on `device` in `dtype`.
    """
    model = empty_model(checkpoint, dtype)
    source = LayerSource(model, checkpoint, device)
    source.read_others()
    source.read_when_needed()
    vars(model)[_SOURCE] = source
    return model


def empty_model(checkpoint: Path, dtype: torch.dtype) -> Any:
    """The model of a checkpoint's config, in eval mode and frozen, its weights on the meta device.

    For the rest of the process, freed memory goes back to the system.
    """
    return_freed_memory()
    build: Any = AutoModelForCausalLM.from_config
    with init_empty_weights(include_buffers=False):
        model = build(read_config(checkpoint), dtype=dtype, trust_remote_code=False)
    return model.eval().requires_grad_(False)


def is_streamed(model: Any) -> bool:
    """Whether the layers of `model` are read when they are needed."""
    return _SOURCE in vars(model)


def in_order(model: Any, part: slice = slice(None)) -> Iterator[int]:
    """The indices of the decoder layers, or a part, each while its weights are in memory.

    What is changed in a layer of a streamed model is lost after its turn.
    """
    order = range(len(decoder_layers(model)))[part]
    return vars(model)[_SOURCE].sweep(order) if is_streamed(model) else iter(order)


def decoder_layers(model: Any) -> list[nn.Module]:
    """The decoder layers of a causal language model of a supported family."""
    family = family_of(model.config.model_type, model.config.architectures)
    return list(model.get_submodule(family.layers).children())


class LayerSource:
    """Reads the weights of a model's layers from its checkpoint."""

    def __init__(self, model: Any, checkpoint: Path, device: torch.device) -> None:
        """`model` is on the meta device."""
        family = family_of(model.config.model_type, model.config.architectures)
        self._model, self._device = model, device
        self._places, self._prefix = tensor_places(checkpoint), f"{family.layers}."
        self._layers = decoder_layers(model)
        self._parts = [
            {name: self._stored(f"{self._prefix}{index}.", name, tensor) for name, tensor in own}
            for index, own in enumerate(layer.state_dict().items() for layer in self._layers)
        ]
        self._present: set[int] = set()

    def read_others(self) -> None:
        """Puts everything outside the layers into the model; tied weights are in memory once."""
        state = self._model.state_dict()
        names = [n for n in state if not n.startswith(self._prefix) and n in self._places]
        _put(self._model, {name: self._read(name, state[name].dtype) for name in names})
        self._model.tie_weights()
        _put(self._model, {n: b.to(self._device) for n, b in self._model.named_buffers()})

    def read_layer(self, index: int) -> None:
        """Puts the weights of one layer into the model."""
        _put(self._layers[index], self._weights_of(index))

    def read_when_needed(self) -> None:
        """Has layers read the weights that they lack when they run, and drop them afterwards."""
        for index, layer in enumerate(self._layers):
            layer.forward = partial(self._forward, index, layer.forward)

    def sweep(self, order: Sequence[int]) -> Iterator[int]:
        """Yields each index while its layer is in memory; meanwhile a thread reads the next one."""
        with ThreadPoolExecutor(1) as reader:
            following = iter(order)
            read = [reader.submit(self._weights_of, next(following))]
            for index in order:
                _put(self._layers[index], read.pop().result())
                read += [reader.submit(self._weights_of, after) for after in islice(following, 1)]
                with self._in_memory(index):
                    yield index

    def _forward(self, index: int, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The forward pass of a layer, also outside a sweep."""
        if index in self._present:
            return own(*args, **kwargs)
        self.read_layer(index)
        with self._in_memory(index):
            return own(*args, **kwargs)

    @contextmanager
    def _in_memory(self, index: int) -> Iterator[None]:
        """Within it, a layer keeps its weights; afterwards it has none."""
        self._present.add(index)
        try:
            yield
        finally:
            self._present.remove(index)
            parameters = self._layers[index].named_parameters()
            _put(
                self._layers[index], {n: torch.empty_like(p, device="meta") for n, p in parameters}
            )

    def _weights_of(self, index: int) -> Weights:
        """The weights of one layer by their names in it."""
        weights: Weights = {}
        for name, part in self._parts[index].items():
            tensors = {stored: self._read(stored, part.dtype) for stored in part.stored}
            if [*tensors] != [part.whole]:
                tensors = _joined(self._model, tensors)
            weights[name] = tensors[part.whole]
        return weights

    def _stored(self, prefix: str, name: str, tensor: Tensor) -> _Part:
        whole = prefix + name
        meta = {whole: torch.empty_like(tensor, device="meta")}
        return _Part(whole, tensor.dtype, tuple(revert_weight_conversion(self._model, meta)))

    def _read(self, name: str, dtype: torch.dtype) -> Tensor:
        file, entry = self._places[name]
        return read_tensor(file, name, entry).to(self._device, dtype)


class _Part(NamedTuple):
    """A tensor of a model: its name, data type, and the tensors in the files that it is made of."""

    whole: str
    dtype: torch.dtype
    stored: tuple[str, ...]


def _joined(model: Any, parts: Weights) -> Weights:
    """The inverse of `revert_weight_conversion`, which takes experts out of their one tensor."""
    conversions = get_model_conversion_mapping(model, add_legacy=False)
    back = [conversion.reverse_transform() for conversion in conversions]
    inverse: Any = SimpleNamespace(_weight_conversions=back[::-1], config=model.config)
    joined: Weights = revert_weight_conversion(inverse, parts)
    return joined


def _put(module: nn.Module, tensors: Weights) -> None:
    """Replaces parameters and buffers of a module."""
    for name, tensor in tensors.items():
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        is_parameter = last in owner._parameters
        setattr(owner, last, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)
