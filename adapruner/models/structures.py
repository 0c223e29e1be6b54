"""Which coupled structures a decoder has, and what each of them costs in parameters.

A *channel* of an MLP is one row of gate and up and one column of down. A *query head* is
`head_dim` rows of the query projection and as many columns of the output projection. A *KV group*
is `head_dim` rows of key and of value together with all query heads that share them. Removing a
structure removes every weight that it is made of, so what is left is a smaller dense model.
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


@dataclass(frozen=True)
class LayerWidths:
    """How many structures of each kind one decoder layer has."""

    mlp_channels: int
    query_heads: int
    kv_groups: int

    @property
    def heads_per_group(self) -> int:
        return self.query_heads // self.kv_groups


@dataclass(frozen=True)
class Structures:
    """The coupled structures of a model. Costs are in parameters, biases included."""

    family: Family
    head_dim: int
    hidden_size: int
    layers: tuple[LayerWidths, ...]
    channel_params: int
    head_params: int
    group_params: int  # of key and value alone; a whole group costs its query heads on top
    total_params: int  # tied embeddings once
    block_params: int

    @cached_property
    def grouped_query(self) -> bool:
        return any(layer.query_heads > layer.kv_groups for layer in self.layers)

    def layer_params(self, widths: LayerWidths) -> int:
        """Parameters of the structures of one layer that has these widths."""
        return (
            widths.mlp_channels * self.channel_params
            + widths.query_heads * self.head_params
            + widths.kv_groups * self.group_params
        )


def describe_model(model: Any) -> Structures:
    """The structures of a model in memory, or on the meta device.

    Raises UserError for an unsupported architecture and for groups of unequal size.
    """
    config = model.config
    family = family_of(config.model_type, config.architectures)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    layers = tuple(_widths(config, index) for index in range(config.num_hidden_layers))
    sizes, first = _Sizes(family, shapes), layers[0]
    gate_up, down = sizes.of(family.gate, family.up), sizes.weight(family.down)
    query, output = sizes.of(family.query), sizes.weight(family.output)
    return Structures(
        family=family,
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // first.query_heads),
        hidden_size=config.hidden_size,
        layers=layers,
        channel_params=(gate_up + down) // first.mlp_channels,
        head_params=(query + output) // first.query_heads,
        group_params=sizes.of(family.key, family.value) // first.kv_groups,
        total_params=sum(prod(shape) for shape in shapes.values()),
        block_params=sum(
            prod(shape) for name, shape in shapes.items() if name.startswith(family.layers + ".")
        ),
    )


@dataclass(frozen=True)
class LayerModules:
    """One decoder layer's modules that hold coupled structures."""

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
        names = ("gate", "up", "down", "query", "key", "value", "output")
        return {name: getattr(self, name) for name in names}


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
class _Sizes:
    family: Family
    shapes: Shapes

    def weight(self, projection: str) -> int:
        return prod(self.shapes[f"{self.family.layers}.0.{projection}.weight"])

    def of(self, *projections: str) -> int:
        """Parameters of the projections of layer 0, with their biases."""
        biases = (f"{self.family.layers}.0.{p}.bias" for p in projections)
        return sum(map(self.weight, projections)) + sum(
            prod(self.shapes.get(b, (0,))) for b in biases
        )


def _widths(config: Any, index: int) -> LayerWidths:
    own = config.per_layer_config[index]
    if own.num_attention_heads % own.num_key_value_heads:
        raise UserError(
            f"layer {index} has {own.num_attention_heads} query heads in "
            f"{own.num_key_value_heads} KV groups: groups must have the same number of heads"
        )
    return LayerWidths(own.intermediate_size, own.num_attention_heads, own.num_key_value_heads)
