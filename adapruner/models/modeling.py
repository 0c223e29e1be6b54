"""Decoders whose layers differ in width.

Transformers stores such widths in `config.per_layer_config` but its stock models build every layer
from one config. The classes here build each layer from its own; all else is the stock model.
This file travels with every checkpoint of that kind (config.json's `auto_map` points to it), so it
imports nothing but Transformers and torch.
"""

# mypy: allow-untyped-calls, disable-error-code="attr-defined,call-arg,union-attr"
from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GemmaModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    MistralModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)
from transformers.models.gemma.modeling_gemma import GemmaDecoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer


class _PerLayerConfig:
    """Marks a config whose head counts may differ by layer and need not divide `hidden_size`."""

    def validate_architecture(self) -> None:
        """Nothing to check: `head_dim` is given, so no width is derived from a head count."""


class _PerLayerModel:
    """Builds layer i of a stock decoder from `config.per_layer_config[i]`."""

    layer_class: type[nn.Module]

    def __init__(self, config: Any) -> None:
        depth = config.num_hidden_layers
        config.num_hidden_layers = 0
        try:
            super().__init__(config)
        finally:
            config.num_hidden_layers = depth
        layers = [self.layer_class(config.per_layer_config[i], i) for i in range(depth)]
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            layer.self_attn.config = config
        self.post_init()


class _PerLayerForCausalLM:
    """A stock causal language model around a decoder with layers of different widths."""

    decoder_class: type[nn.Module]

    def __init__(self, config: Any) -> None:
        depth = config.num_hidden_layers
        config.num_hidden_layers = 0
        try:
            super().__init__(config)
        finally:
            config.num_hidden_layers = depth
        self.model = self.decoder_class(config)
        self.post_init()


@strict
class PerLayerLlamaConfig(_PerLayerConfig, LlamaConfig):
    model_type = "adapruner_llama"


class PerLayerLlamaModel(_PerLayerModel, LlamaModel):
    config_class = PerLayerLlamaConfig
    layer_class = LlamaDecoderLayer


class PerLayerLlamaForCausalLM(_PerLayerForCausalLM, LlamaForCausalLM):
    config_class = PerLayerLlamaConfig
    decoder_class = PerLayerLlamaModel


@strict
class PerLayerMistralConfig(_PerLayerConfig, MistralConfig):
    model_type = "adapruner_mistral"


class PerLayerMistralModel(_PerLayerModel, MistralModel):
    config_class = PerLayerMistralConfig
    layer_class = MistralDecoderLayer


class PerLayerMistralForCausalLM(_PerLayerForCausalLM, MistralForCausalLM):
    config_class = PerLayerMistralConfig
    decoder_class = PerLayerMistralModel


@strict
class PerLayerQwen2Config(_PerLayerConfig, Qwen2Config):
    model_type = "adapruner_qwen2"


class PerLayerQwen2Model(_PerLayerModel, Qwen2Model):
    config_class = PerLayerQwen2Config
    layer_class = Qwen2DecoderLayer


class PerLayerQwen2ForCausalLM(_PerLayerForCausalLM, Qwen2ForCausalLM):
    config_class = PerLayerQwen2Config
    decoder_class = PerLayerQwen2Model


@strict
class PerLayerQwen3Config(_PerLayerConfig, Qwen3Config):
    model_type = "adapruner_qwen3"


class PerLayerQwen3Model(_PerLayerModel, Qwen3Model):
    config_class = PerLayerQwen3Config
    layer_class = Qwen3DecoderLayer


class PerLayerQwen3ForCausalLM(_PerLayerForCausalLM, Qwen3ForCausalLM):
    config_class = PerLayerQwen3Config
    decoder_class = PerLayerQwen3Model


@strict
class PerLayerGemmaConfig(_PerLayerConfig, GemmaConfig):
    model_type = "adapruner_gemma"


class PerLayerGemmaModel(_PerLayerModel, GemmaModel):
    config_class = PerLayerGemmaConfig
    layer_class = GemmaDecoderLayer


class PerLayerGemmaForCausalLM(_PerLayerForCausalLM, GemmaForCausalLM):
    config_class = PerLayerGemmaConfig
    decoder_class = PerLayerGemmaModel
