"""Runs a dense model with masks on its residual subsets and MLP channels.

The masks are multiplied by what a block reads after the norm, by what it writes before the residual
sum, and by the input of the MLP's output projection. With zeros and ones the model computes what
the cut model computes; gradients flow to the masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.models.residual import SUBSETS
from adapruner.models.structures import Structures, layer_modules
from adapruner.pruning.plan import LayerPlan

CHANNELS = "mlp_channels"

KINDS = (*SUBSETS, CHANNELS)
"""What a layer has masks of."""

Masks = Mapping[str, Tensor]
"""Kind -> mask, [dimensions or channels]; a kind without a mask is whole."""


@contextmanager
def masked(model: Any, masks: Sequence[Masks]) -> Iterator[None]:
    """Within it, `model` runs with the masks of each layer; afterwards it is the dense one again.

    No layer has experts.
    """
    handles = []
    for modules, of_layer in zip(layer_modules(model), masks, strict=True):
        blocks = (modules.attention, "attention"), (modules.mlp, "mlp")
        for block, name in blocks:
            if (reads := of_layer.get(f"{name}_in")) is not None:
                hook = partial(_mask_input, reads)
                handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
            if (writes := of_layer.get(f"{name}_out")) is not None:
                handles.append(block.register_forward_hook(partial(_mask_output, writes)))
        if (channels := of_layer.get(CHANNELS)) is not None:
            hook = partial(_mask_input, channels)
            assert isinstance(modules.down, nn.Linear)
            handles.append(modules.down.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hard_masks(structures: Structures, layers: Sequence[LayerPlan]) -> list[dict[str, Tensor]]:
    """The masks, of zeros and ones, that run a dense model as a plan with subsets cuts it."""
    masks = []
    for dense, kept in zip(structures.layers, layers, strict=True):
        assert kept.residual is not None
        subsets = kept.residual.subsets
        own = {name: _mask(structures.hidden_size, subset) for name, subset in subsets.items()}
        masks.append(own | {CHANNELS: _mask(dense.mlp_channels, kept.channels())})
    return masks


def _mask(size: int, kept: Sequence[int]) -> Tensor:
    mask = torch.zeros(size)
    mask[list(kept)] = 1
    return mask


def _mask_input(mask: Tensor, _: Any, args: Any, kwargs: Any) -> Any:
    if args:
        return (_times(args[0], mask), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": _times(kwargs["hidden_states"], mask)}


def _mask_output(mask: Tensor, _module: Any, _args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return (_times(output[0], mask), *output[1:])
    return _times(output, mask)


def _times(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden * mask.to(hidden)
