"""Small random models of every family, for tests of exactness."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.models.families import FAMILIES

BASE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""The config fields that all kinds share."""

WINDOW = {"sliding_window": 6}
"""A sliding window that is shorter than the tests' texts."""

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-mha": {"model_type": "llama", "num_key_value_heads": 4},
    "llama-scaled": {
        "model_type": "llama",
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "mistral": {"model_type": "mistral"},
    "mistral-sliding": {"model_type": "mistral", **WINDOW},
    "qwen2": {"model_type": "qwen2"},
    "qwen2-sliding": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "max_window_layers": 2,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        **WINDOW,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "qwen3-moe": {
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "norm_topk_prob": True,
    },
    "qwen3-moe-mixed": {
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "mlp_only_layers": [1],
    },
    "gemma-mqa": {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 16},
    "gemma2": {
        "model_type": "gemma2",
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 4.0,
        **WINDOW,
    },
    "gemma3": {"model_type": "gemma3_text", "sliding_window_pattern": 2, **WINDOW},
    "olmo2-mha": {"model_type": "olmo2", "num_key_value_heads": 4},
    "olmo3": {"model_type": "olmo3", "tie_word_embeddings": True, **WINDOW},
    "granite": {
        "model_type": "granite",
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 2.0,
        "mlp_bias": True,
    },
    "phi3": {
        "model_type": "phi3",
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
        **WINDOW,
    },
    "phi3-long": {
        "model_type": "phi3",
        "num_key_value_heads": 4,
        "original_max_position_embeddings": 4,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 4,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 2.0, 3.0, 4.0],
        },
    },
    "glm": {"model_type": "glm"},
    "glm4": {"model_type": "glm4", "head_dim": 16},
    "smollm3": {"model_type": "smollm3", "use_sliding_window": True, **WINDOW},
}
"""Kind of model -> the config fields that differ from BASE; every family has at least one."""

assert {kind["model_type"] for kind in KINDS.values()} == set(FAMILIES)


def small_model(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A model of a kind of `KINDS` with random weights and biases, frozen, in eval mode.

    `changes` are config fields that differ from the kind's.
    """
    fields = BASE | KINDS[kind] | changes
    return random_model(fields, FAMILIES[fields["model_type"]].architecture, seed)


def random_model(fields: dict[str, Any], architecture: str, seed: int = 0) -> Any:
    """A model of these config fields with random weights and biases, frozen, in eval mode."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(**fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.15)
    config.architectures = [architecture]
    return model.eval().requires_grad_(False)


def with_linear_experts(model: Any) -> Any:
    """A copy whose layers of experts are one MLP each, made of linear layers, as a reference."""
    twin = copy.deepcopy(model)
    for layer in twin.model.layers:
        if hasattr(layer.mlp, "experts"):
            layer.mlp = LinearExperts(layer.mlp)
    return twin


class LinearExperts(nn.Module):
    """All experts of a block as one MLP, whose hidden channels have the router's weights."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        _, hidden, channels = block.experts.down_proj.shape
        self.router, self.act, self.channels = block.gate, block.experts.act_fn, channels
        gate, up = block.experts.gate_up_proj.detach().split(channels, 1)
        down = block.experts.down_proj.detach().permute(1, 0, 2)
        self.gate_proj = self.up_proj = self.down_proj = None
        for name, weight in (("gate", gate), ("up", up), ("down", down)):
            matrix = weight.reshape(hidden, -1) if name == "down" else weight.reshape(-1, hidden)
            linear = nn.Linear(*reversed(matrix.shape), bias=False)
            linear.weight = nn.Parameter(matrix.clone(), requires_grad=False)
            setattr(self, f"{name}_proj", linear)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits, scores, chosen = self.router(hidden)
        weights = torch.zeros_like(logits).scatter(1, chosen, scores).view(*hidden.shape[:-1], -1)
        inner = self.act(self.gate_proj(hidden)) * self.up_proj(hidden)
        return self.down_proj(inner * weights.repeat_interleave(self.channels, -1))


def tokens(count: int, length: int, seed: int = 0) -> torch.Tensor:
    """int32 [count, length] of random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, BASE["vocab_size"], (count, length), generator=generator).int()
