"""Decoders whose layers differ in width, for every family that Transformers builds alike.

Transformers stores such widths in `config.per_layer_config`, but its stock models build every layer
from one config. The classes of this module build each layer from the layer's own config;
everything else is the stock model.

The classes of a family are made when they are first requested, by Transformers' names:
`PerLayerLlamaConfig`, `PerLayerLlamaModel` and `PerLayerLlamaForCausalLM` derive from
`LlamaForCausalLM`, its config class and its decoder, with layers of the class `LlamaDecoderLayer`.
The model type is `adapruner_` and the stock one.

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

import transformers
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import MODEL_MAPPING
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

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
