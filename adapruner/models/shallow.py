"""Models of a checkpoint's architecture and widths with a few layers and random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def shallow_model(
    config: Any, depth: int, vocabulary: int, dtype: torch.dtype, **fields: Any
) -> Any:
    """A model of `config` with at most `depth` layers and a small vocabulary, and other `fields`.

    Lists with a value for each layer are cut to the depth.
    """
    values = {
        name: value[:depth]
        if isinstance(value, list) and len(value) == config.num_hidden_layers
        else value
        for name, value in config.to_dict().items()
    }
    values |= {"num_hidden_layers": min(config.num_hidden_layers, depth)}
    values |= {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    small = AutoConfig.for_model(**values | fields)
    small.architectures = config.architectures
    build: Any = AutoModelForCausalLM.from_config
    return build(small, dtype=dtype).eval().requires_grad_(False)
