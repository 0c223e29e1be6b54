"""Small random models of every family that GGUF has an architecture for, with what it can set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.models.families import FAMILIES

RANDOM_WIDTHS: dict[str, Callable[[int], int]] = {
    "equal": lambda i: 160,
    "differ": lambda i: (192, 96, 136, 64)[i % 4],
}
"""Layout -> MLP channels of layer i of the random models."""

SMALL = {
    "vocab_size": 49152, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 2048,
}  # fmt: skip


def rope(kind: str, theta: float = 10000.0, **settings: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": theta, **settings}


def long_rope(original: int) -> dict[str, Any]:
    """Phi-3's factors: the long ones for windows of 512 tokens where `original` is shorter."""
    factors = {
        "short_factor": [1.0 + 0.02 * i for i in range(16)],
        "long_factor": [1.0 + 0.3 * i for i in range(16)],
    }
    length = {"original_max_position_embeddings": original}
    return {
        "model_type": "phi3",
        "rope_parameters": rope("longrope", **factors, **length),
        **length,
    }


MULTIPLIERS = {
    "model_type": "granite", "attention_multiplier": 0.2, "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5, "logits_scaling": 2.0,
}  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-scaled": {
        "model_type": "llama",
        "rope_parameters": rope(
            "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    },
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
    "gemma": {"model_type": "gemma"},
    "gemma2": {
        "model_type": "gemma2", "sliding_window": 64, "query_pre_attn_scalar": 32,
        "attn_logit_softcapping": 4.0, "final_logit_softcapping": 8.0,
    },
    "gemma3": {
        "model_type": "gemma3_text", "sliding_window": 64, "query_pre_attn_scalar": 32,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "sliding_attention": rope("default"),
            "full_attention": rope("linear", 1000000.0, factor=8.0),
        },
    },
    "olmo2": {"model_type": "olmo2", "num_key_value_heads": 4},
    "olmo3": {"model_type": "olmo3", "sliding_window": 64},
    "granite": MULTIPLIERS | {"attention_bias": True, "mlp_bias": True},
    "granite-tied": MULTIPLIERS | {"tie_word_embeddings": True},
    "smollm3": {"model_type": "smollm3"},
    "phi3": {"model_type": "phi3"},
    "phi3-partial": {
        "model_type": "phi3", "rope_parameters": rope("default", partial_rotary_factor=0.75),
    },
    "phi3-long": long_rope(256),
    "phi3-short": long_rope(1024),
    "glm": {"model_type": "glm"},
    "glm4": {"model_type": "glm4"},
}  # fmt: skip
"""Name -> fields of the config beside those of SMALL."""


def random_model(fields: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**SMALL | fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.15)
    config.architectures = [FAMILIES[config.model_type].architecture]
    return model.eval().requires_grad_(False)
