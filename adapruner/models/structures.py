"""The coupled structures of a decoder, and their sizes in parameters.

A *channel* of an MLP is one row of gate and up and one column of down. A *query head* is
`head_dim` rows of the query projection and as many columns of the output projection. A *KV group*
is `head_dim` rows of key and of value together with all query heads that share them. Removing a
structure removes all of its weights, so the result is a smaller dense model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from torch import nn

from adapruner.errors import UserError
from adapruner.models.families import Family, family_of

Shapes = Mapping[str, tuple[int, ...]]

PROJECTIONS = ("gate", "up", "down", "query", "key", "value", "output")
"""Names of the linear layers of a decoder layer, fields of `LayerModules`."""


@dataclass(frozen=True)
class LayerWidths:
    """Numbers of structures of each kind in one decoder layer."""

    mlp_channels: int
    query_heads: int
    kv_groups: int

    @property
    def heads_per_group(self) -> int:
        """Query heads that share one KV group."""
        return self.query_heads // self.kv_groups


@dataclass(frozen=True)
class Structures:
    """The coupled structures of a model. Sizes are numbers of parameters, biases included.

    `group_params` counts key and value alone, without the query heads of the group;
    `total_params` counts tied embeddings once; `block_params` are those of all decoder layers.
    """

    family: Family
    head_dim: int
    hidden_size: int
    layers: tuple[LayerWidths, ...]
    channel_params: int
    head_params: int
    group_params: int
    total_params: int
    block_params: int

    @cached_property
    def grouped_query(self) -> bool:
        """Whether query heads share KV groups in any layer."""
        return any(layer.query_heads > layer.kv_groups for layer in self.layers)

    def layer_params(self, widths: LayerWidths) -> int:
        """Parameters of the structures of one layer with these widths."""
        return (
            widths.mlp_channels * self.channel_params
            + widths.query_heads * self.head_params
            + widths.kv_groups * self.group_params
        )


def describe_model(model: Any) -> Structures:
    """The structures of a model in memory, or on the meta device.

    Raises UserError for an unsupported architecture and for KV groups of unequal size.
    """
    config = model.config
    family = family_of(config.model_type, config.architectures)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    layers = tuple(_widths(config, index) for index in range(config.num_hidden_layers))
    sizes, first = _FirstLayerSizes(family, shapes), layers[0]
    # Biases of down and output belong to the hidden size, not to a structure.
    gate_up, down = sizes.with_bias(family.gate, family.up), sizes.weight(family.down)
    query, output = sizes.with_bias(family.query), sizes.weight(family.output)
    return Structures(
        family=family,
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // first.query_heads),
        hidden_size=config.hidden_size,
        layers=layers,
        channel_params=(gate_up + down) // first.mlp_channels,
        head_params=(query + output) // first.query_heads,
        group_params=sizes.with_bias(family.key, family.value) // first.kv_groups,
        total_params=sum(prod(shape) for shape in shapes.values()),
        block_params=sum(
            prod(shape) for name, shape in shapes.items() if name.startswith(family.layers + ".")
        ),
    )


@dataclass(frozen=True)
class LayerModules:
    """The modules of one decoder layer that hold coupled structures."""

    mlp: Any
    attention: Any
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear

    @property
    def projections(self) -> dict[str, nn.Linear]:
        """Name -> linear layer, for the seven projections."""
        return {name: getattr(self, name) for name in PROJECTIONS}


def layer_modules(model: nn.Module) -> list[LayerModules]:
    """The decoder layers of a causal language model of a supported family, in order."""
    config: Any = model.config
    family = family_of(config.model_type, config.architectures)
    layers = model.get_submodule(family.layers)
    parts: list[dict[str, Any]] = [
        {name: layer.get_submodule(getattr(family, name)) for name in LayerModules.__annotations__}
        for layer in layers.children()
    ]
    return [LayerModules(**part) for part in parts]


@dataclass(frozen=True)
class _FirstLayerSizes:
    """Sizes of the projections of decoder layer 0, in parameters."""

    family: Family
    shapes: Shapes

    def weight(self, projection: str) -> int:
        return prod(self.shapes[f"{self.family.layers}.0.{projection}.weight"])

    def with_bias(self, *projections: str) -> int:
        """Parameters of the projections, weights and biases."""
        biases = (f"{self.family.layers}.0.{p}.bias" for p in projections)
        weights = sum(self.weight(projection) for projection in projections)
        return weights + sum(prod(self.shapes.get(name, (0,))) for name in biases)


def _widths(config: Any, index: int) -> LayerWidths:
    layer = config.per_layer_config[index]
    if layer.num_attention_heads % layer.num_key_value_heads:
        raise UserError(
            f"layer {index} has {layer.num_attention_heads} query heads in "
            f"{layer.num_key_value_heads} KV groups: groups must have the same number of heads"
        )
    return LayerWidths(
        layer.intermediate_size, layer.num_attention_heads, layer.num_key_value_heads
    )
