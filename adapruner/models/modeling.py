"""Decoders whose layers differ in width, for every family that Transformers builds alike.

Transformers stores such widths in `config.per_layer_config`, but its stock models build every layer
from one config. The classes of this module build each layer from the layer's own config;
everything else is the stock model.

The classes of a family are made when they are first requested, by Transformers' names:
`PerLayerLlamaConfig`, `PerLayerLlamaModel` and `PerLayerLlamaForCausalLM` derive from
`LlamaForCausalLM`, its config class and its decoder, with layers of the class `LlamaDecoderLayer`.
The model type is `adapruner_` and the stock one.

Where the config has `residual_widths`, each block reads a subset of the residual stream, after the
norm, and writes a subset: the projections have as many columns and rows, and the indices are
buffers of the attention and of the MLP. Norms and embeddings keep the whole width.

A copy of this file is part of every per-layer checkpoint (`auto_map` in its config.json), so it
imports nothing but Transformers, torch and huggingface_hub.
"""

# mypy: allow-untyped-calls, disable-error-code="call-arg"
from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import transformers
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import MODEL_MAPPING
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

RESIDUAL_WIDTHS = "residual_widths"
"""Field of a config: per layer the dimensions that attention reads and writes, and the MLP."""

WRITERS = ("o_proj", "down_proj")
"""Projections that write to the residual stream; the other ones of their block read it."""

_CLASS_NAME = re.compile(r"PerLayer(?P<family>\w+?)(?P<role>Config|Model|ForCausalLM)")


@contextmanager
def _no_layers(config: Any) -> Iterator[None]:
    """Lets a stock class build all but its layers, which it would build from one config.

    Meanwhile the config has no widths by layer, which some rotary embeddings don't let it have.
    """
    depth, widths = config.num_hidden_layers, vars(config).pop("_heterogeneity_spec", None)
    config.num_hidden_layers = 0
    try:
        yield
    finally:
        config.num_hidden_layers = depth
        if widths is not None:
            vars(config)["_heterogeneity_spec"] = widths


class LayerConfig:
    """A model's config as the attention of one layer sees it: with the layer's own head counts."""

    def __init__(self, shared: Any, query_heads: int, kv_groups: int) -> None:
        self._shared = shared
        self.num_attention_heads, self.num_key_value_heads = query_heads, kv_groups

    def __getattr__(self, name: str) -> Any:
        if name == "_shared":  # while a copy is made
            raise AttributeError(name)
        return getattr(self._shared, name)


class _PerLayerConfig:
    """A config whose head counts may differ by layer and need not divide `hidden_size`."""

    def validate_architecture(self) -> None:
        """Checks nothing: `head_dim` is always set, so no width derives from a head count."""

    def validate_rope(self) -> None:
        """Checks nothing: stock checks read a head count, and the stock config was checked."""


def select_residual(block: nn.Module, reads: Any, writes: Any, hidden_size: int) -> None:
    """Has `block` read and write these dimensions of a residual stream of `hidden_size`.

    `reads` and `writes` are int64 indices, [R] and [W]; its projections already have these widths.
    The block returns the whole width, zeros included, to which a stock layer adds the stream.
    """
    block.register_buffer("reads", reads)
    block.register_buffer("writes", writes)
    block.residual_size = hidden_size  # type: ignore[assignment]
    block.register_forward_pre_hook(_read, with_kwargs=True)
    block.register_forward_hook(_write)


def _read(block: Any, args: Any, kwargs: Any) -> Any:
    """Stock layers pass the hidden states to attention by name, and to the MLP by position."""
    if args:
        return (args[0].index_select(-1, block.reads), *args[1:]), kwargs
    selected = kwargs["hidden_states"].index_select(-1, block.reads)
    return args, kwargs | {"hidden_states": selected}


def _write(block: Any, _: Any, output: Any) -> Any:
    part = output[0] if isinstance(output, tuple) else output
    whole = part.new_zeros((*part.shape[:-1], block.residual_size))
    whole = whole.index_add(-1, block.writes, part)
    return (whole, *output[1:]) if isinstance(output, tuple) else whole


def _narrow(block: nn.Module, reads: int, writes: int, hidden_size: int) -> None:
    """Gives a block that was built by a stock class the widths and indices of a subset."""
    for name, linear in list(block.named_children()):
        if isinstance(linear, nn.Linear):
            columns, rows = linear.in_features, linear.out_features
            columns, rows = (columns, writes) if name in WRITERS else (reads, rows)
            setattr(block, name, nn.Linear(columns, rows, bias=linear.bias is not None))
    select_residual(block, torch.arange(reads), torch.arange(writes), hidden_size)


class _PerLayerModel:
    """Builds layer i of a stock decoder from `config.per_layer_config[i]`."""

    layer_class: type[nn.Module]
    rotary_emb: Any

    def __init__(self, config: Any) -> None:
        with _no_layers(config):
            super().__init__(config)
        layers: list[Any] = [
            self.layer_class(config.per_layer_config[i], i) for i in range(config.num_hidden_layers)
        ]
        self.layers = nn.ModuleList(layers)
        for layer, own in zip(layers, config.per_layer_config, strict=True):
            heads = own.num_attention_heads, own.num_key_value_heads
            layer.self_attn.config = LayerConfig(config, *heads)
            self.rotary_emb.config = layer.self_attn.config  # its size is `head_dim` alone
            if hasattr(layer.mlp, "experts"):
                layer.mlp.experts.config = config  # of which they read the implementation
        residual = getattr(config, RESIDUAL_WIDTHS, None) or ()
        for layer, widths in zip(layers, residual, strict=False):
            _narrow(layer.self_attn, *widths[:2], config.hidden_size)
            _narrow(layer.mlp, *widths[2:], config.hidden_size)
        self.post_init()  # type: ignore[attr-defined]


class _PerLayerForCausalLM:
    """A stock causal language model around a decoder whose layers differ in width."""

    decoder_class: type[nn.Module]

    def __init__(self, config: Any) -> None:
        with _no_layers(config):
            super().__init__(config)
        self.model = self.decoder_class(config)
        self.post_init()  # type: ignore[attr-defined]


def __getattr__(name: str) -> Any:
    """The per-layer class of this name (PEP 562). Raises AttributeError for any other name."""
    match = _CLASS_NAME.fullmatch(name)
    if match is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _per_layer_class(match["family"], match["role"])


@cache
def _per_layer_class(family: str, role: str) -> Any:
    """The class of a family (`Llama`) in a role: Config, Model or ForCausalLM."""
    name, causal = f"PerLayer{family}{role}", getattr(transformers, f"{family}ForCausalLM")
    if role == "Config":
        stock = causal.config_class
        model_type = f"adapruner_{stock.model_type}"
        _convert_weights_as(stock.model_type, model_type)
        return strict(_subclass(name, _PerLayerConfig, stock, {"model_type": model_type}))
    attributes = {"config_class": _per_layer_class(family, "Config")}
    if role == "ForCausalLM":
        attributes["decoder_class"] = _per_layer_class(family, "Model")
        return _subclass(name, _PerLayerForCausalLM, causal, attributes)
    attributes["layer_class"] = getattr(sys.modules[causal.__module__], f"{family}DecoderLayer")
    decoder: Any = MODEL_MAPPING[causal.config_class]
    return _subclass(name, _PerLayerModel, decoder, attributes)


def _convert_weights_as(stock: str, per_layer: str) -> None:
    """Has Transformers store the weights of a family's per-layer models as it does stock ones.

    Without it, models that are not Transformers' own are stored with all experts in one tensor.
    """
    conversions = get_checkpoint_conversion_mapping(stock)
    for model_type in (stock, per_layer) if conversions else ():
        register_checkpoint_conversion_mapping(model_type, conversions, overwrite=True)


def _subclass(name: str, mixin: type, stock: type, attributes: dict[str, Any]) -> type:
    """The class `name` of this module, which puts `mixin` before `stock`."""
    described = {"__module__": __name__, "__qualname__": name, "__doc__": mixin.__doc__}
    return type(stock)(name, (mixin, stock), described | attributes)
