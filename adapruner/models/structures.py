"""The coupled structures of a decoder, and their sizes in parameters.

A *channel* of an MLP is one row of gate and up and one column of down. A *query head* is
`head_dim` rows of the query projection and as many columns of the output projection. A *KV group*
is `head_dim` rows of key and of value with all query heads that share them. An *expert* is a share
of a layer's channels and its row of the router. All weights of a structure are removed together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from torch import Tensor, nn

from adapruner.errors import UserError
from adapruner.models.experts import ExpertProjection
from adapruner.models.families import PRE_NORMS, Family, family_of

MLP_PARTS = ("gate", "up", "down")
ATTENTION_PARTS = ("query", "key", "value", "output")
PROJECTIONS = MLP_PARTS + ATTENTION_PARTS
"""Names of the projections of a decoder layer, fields of `LayerModules`."""


@dataclass(frozen=True)
class Rows:
    """A projection that is `out_features` rows, from `start` on, of a fused linear layer."""

    linear: nn.Linear
    start: int
    out_features: int

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return self.linear.in_features

    @property
    def slice(self) -> slice:
        """The rows in the fused layer."""
        return slice(self.start, self.start + self.out_features)

    @property
    def weight(self) -> Tensor:
        """A view of the fused weight, [out_features, in_features]."""
        return self.linear.weight[self.slice]

    @property
    def bias(self) -> Tensor | None:
        """A view of the fused bias, [out_features]."""
        return None if self.linear.bias is None else self.linear.bias[self.slice]


Projection = nn.Linear | Rows
MlpProjection = Projection | ExpertProjection


def placed(projection: Projection) -> tuple[nn.Linear, slice]:
    """The linear layer that holds a projection, and the projection's rows in it."""
    if isinstance(projection, Rows):
        return projection.linear, projection.slice
    return projection, slice(0, projection.out_features)


@dataclass(frozen=True)
class LayerWidths:
    """Numbers of structures of each kind in one decoder layer.

    `mlp_channels` are those of all experts together; `experts` is 0 for a layer with one MLP.
    """

    mlp_channels: int
    query_heads: int
    kv_groups: int
    experts: int = 0

    @property
    def mlps(self) -> int:
        """The experts, or the one MLP."""
        return self.experts or 1

    @property
    def mlp_width(self) -> int:
        """Channels of each expert, or of the one MLP."""
        return self.mlp_channels // self.mlps

    @property
    def heads_per_group(self) -> int:
        """Query heads that share one KV group."""
        return self.query_heads // self.kv_groups


@dataclass(frozen=True)
class ResidualWidths:
    """Dimensions of the residual stream that the two blocks of one layer read and write."""

    attention_in: int
    attention_out: int
    mlp_in: int
    mlp_out: int


@dataclass(frozen=True)
class Structures:
    """The coupled structures of a model. Sizes are numbers of parameters, biases included.

    `group_params` counts key and value alone, without the query heads of the group;
    `total_params` counts tied embeddings once; `block_params` are those of all decoder layers.
    `stock_head_counts` are the numbers of query heads that the family's stock config accepts.
    `expert_params` counts an expert's row of the router alone, without its channels, and
    `experts_per_token` experts are chosen for a token; both are 0 in a family without experts.
    `residual` is empty unless the layers read and write subsets of the residual stream; such a
    model is not pruned again, and its `channel_params`, `head_params` and `group_params` are those
    of the first layer. `writer_biases` are 1 where the output projections of attention and of the
    MLP have a bias for each dimension. `is_pre_norm`: norms are before the blocks alone.
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
    stock_head_counts: tuple[int, ...]
    expert_params: int = 0
    experts_per_token: int = 0
    residual: tuple[ResidualWidths, ...] = ()
    writer_biases: tuple[int, int] = (0, 0)
    is_pre_norm: bool = True

    def active_channels(self, widths: LayerWidths) -> int:
        """MLP channels of a layer of these widths that compute a token: those of chosen experts."""
        mlps = self.experts_per_token if widths.experts else 1
        return mlps * widths.mlp_width

    @cached_property
    def has_experts(self) -> bool:
        """Whether any layer has experts."""
        return any(layer.experts for layer in self.layers)

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
            + widths.experts * self.expert_params
        )


def describe_model(model: Any) -> Structures:
    """The structures of a model in memory, or on the meta device.

    Raises UserError for an unsupported architecture and for KV groups of unequal size.
    """
    config = model.config
    family = family_of(config.model_type, config.architectures)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    decoder = list(model.get_submodule(family.layers).children())
    layers = tuple(_widths(config, index, layer) for index, layer in enumerate(decoder))
    first, modules = layers[0], layer_modules(model)[0]
    # Biases of down and output belong to the hidden size, not to a structure.
    gate_up, down = _size(modules.gate) + _size(modules.up), _weights(modules.down)
    query, output = _size(modules.query), _weights(modules.output)
    return Structures(
        family=family,
        head_dim=_head_dim(config),
        hidden_size=config.hidden_size,
        layers=layers,
        channel_params=(gate_up + down) // first.mlp_channels,
        head_params=(query + output) // first.query_heads,
        group_params=(_size(modules.key) + _size(modules.value)) // first.kv_groups,
        total_params=sum(prod(shape) for shape in shapes.values()),
        block_params=sum(
            prod(shape) for name, shape in shapes.items() if name.startswith(family.layers + ".")
        ),
        stock_head_counts=family.stock_head_counts(config),
        expert_params=config.hidden_size if family.experts else 0,
        experts_per_token=config.num_experts_per_tok if family.experts else 0,
        residual=tuple(ResidualWidths(*widths) for widths in residual_widths(config)),
        writer_biases=(int(modules.output.bias is not None), int(modules.down.bias is not None)),
        is_pre_norm=all(_others(family, layer) == PRE_NORMS for layer in decoder),
    )


def residual_widths(config: Any) -> list[list[int]]:
    """The values of `ResidualWidths` of each layer; none where all read and write everything."""
    from adapruner.models.modeling import RESIDUAL_WIDTHS  # it imports Transformers

    return getattr(config, RESIDUAL_WIDTHS, None) or []


@dataclass(frozen=True)
class LayerModules:
    """The modules of one decoder layer that hold coupled structures."""

    mlp: Any
    attention: Any
    gate: MlpProjection
    up: MlpProjection
    down: nn.Linear | ExpertProjection
    query: Projection
    key: Projection
    value: Projection
    output: nn.Linear

    @property
    def projections(self) -> dict[str, Any]:
        """Name -> linear layer, rows of one, or those of all experts, for the seven projections."""
        return {name: getattr(self, name) for name in PROJECTIONS}


def layer_modules(model: nn.Module) -> list[LayerModules]:
    """The decoder layers of a causal language model of a supported family, in order."""
    config: Any = model.config
    family = family_of(config.model_type, config.architectures)
    layers = model.get_submodule(family.layers)
    return [
        _modules(family, layer, _widths(config, index, layer), _head_dim(config))
        for index, layer in enumerate(layers.children())
    ]


def _modules(family: Family, layer: nn.Module, widths: LayerWidths, head_dim: int) -> LayerModules:
    names = {name: getattr(family, name) for name in LayerModules.__annotations__}
    parts: dict[str, Any] = {}
    if widths.experts:
        names = {name: path for name, path in names.items() if name not in MLP_PARTS}
        block, experts, router = map(
            layer.get_submodule, (family.mlp, family.experts, family.router)
        )
        parts = {name: ExpertProjection(block, experts, router, name) for name in MLP_PARTS}
    parts |= {name: layer.get_submodule(path) for name, path in names.items()}
    query, key = widths.query_heads * head_dim, widths.kv_groups * head_dim
    channels, ends = widths.mlp_channels, dict.fromkeys(names.values(), 0)
    for name, rows in {
        "query": query, "key": key, "value": key, "gate": channels, "up": channels
    }.items():  # fmt: skip
        path = names.get(name)
        if path and list(names.values()).count(path) > 1:
            parts[name] = Rows(parts[name], ends[path], rows)
            ends[path] += rows
    return LayerModules(**parts)


def _others(family: Family, layer: nn.Module) -> set[str]:
    """The children of a layer that have weights, other than its blocks."""
    blocks = (family.attention, family.mlp)
    children = layer.named_children()
    return {name for name, part in children if name not in blocks and list(part.parameters())}


def _size(projection: MlpProjection) -> int:
    """Parameters of a projection, weight and bias."""
    return _weights(projection) + (0 if projection.bias is None else projection.out_features)


def _weights(projection: MlpProjection) -> int:
    return projection.in_features * projection.out_features


def _head_dim(config: Any) -> int:
    heads = config.per_layer_config[0].num_attention_heads
    return int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def _widths(config: Any, index: int, module: nn.Module) -> LayerWidths:
    """The widths of layer `index`, whose module tells whether its MLP is made of experts."""
    layer, family = config.per_layer_config[index], family_of(config.model_type, None)
    heads, groups = layer.num_attention_heads, layer.num_key_value_heads
    if heads % groups:
        raise UserError(
            f"layer {index} has {heads} query heads in {groups} KV groups: groups must have the "
            "same number of heads"
        )
    if not family.experts or family.experts not in dict(module.named_modules()):
        return LayerWidths(layer.intermediate_size, heads, groups)
    channels = layer.num_experts * layer.moe_intermediate_size
    return LayerWidths(channels, heads, groups, layer.num_experts)


def check_dropout(structures: Structures) -> None:
    """Raises UserError for a model whose LoRA adapters can't have dropout."""
    if structures.has_experts:
        raise UserError(
            f"finetune.dropout above 0: adapters of the experts of {structures.family.architecture}"
            " have none; set it to 0"
        )
