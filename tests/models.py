"""Small random models of every family, for tests of exactness."""

from __future__ import annotations

from typing import Any

import torch
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

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-mha": {"model_type": "llama", "num_key_value_heads": 4},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "gemma-mqa": {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 16},
}
"""Kind of model -> the config fields that differ from BASE; every family has at least one."""

assert {kind["model_type"] for kind in KINDS.values()} == set(FAMILIES)


def small_model(kind: str, seed: int = 0) -> Any:
    """A model of a kind of `KINDS` with random weights and biases, frozen, in eval mode."""
    fields = BASE | KINDS[kind]
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


def tokens(count: int, length: int, seed: int = 0) -> torch.Tensor:
    """int32 [count, length] of random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, BASE["vocab_size"], (count, length), generator=generator).int()
