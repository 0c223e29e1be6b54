"""Per-layer models, and changes to checkpoints on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.models.families import Family, family_of
from adapruner.models.storage.checkpoint import auto_map
from adapruner.models.storage.weights import weight_files
from adapruner.models.structures import describe_model
from tests.adapruner.conftest import Workplace

WIDTHS: dict[int, dict[str, int]] = {
    0: {"intermediate_size": 40},
    1: {"intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1},
    2: {"num_attention_heads": 3, "num_key_value_heads": 1},
    3: {"num_attention_heads": 1, "num_key_value_heads": 1},
}
"""Widths of the layers of a per-layer model that differ from the stock config."""

MLP_WIDTHS: dict[int, dict[str, int]] = {
    0: {"intermediate_size": 40},
    2: {"intermediate_size": 24},
    3: {"intermediate_size": 17},
}
"""The same, of a model whose layers differ in the width of the MLP alone."""


def per_layer_model(stock: Any, widths: dict[int, dict[str, int]], seed: int = 0) -> Any:
    """A random per-layer model with the config of a stock model, except for these widths."""
    family: Family = family_of(stock.config.model_type, stock.config.architectures)
    fields = stock.config.to_dict() | {"per_layer_config": own_widths(stock, widths)}
    fields.pop("model_type")
    stock_config = set().union(*widths.values()) <= {"intermediate_size"}
    model_type = family.model_type if stock_config else family.per_layer_type
    config = AutoConfig.for_model(model_type, **fields)
    config.architectures = [family.per_layer_architecture]
    config.auto_map = auto_map(family, stock_config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.15)
    return model.eval().requires_grad_(False)


def own_widths(stock: Any, widths: dict[int, dict[str, int]]) -> dict[int, dict[str, int]]:
    """The widths of layers, where those of an MLP made of experts are those of fewer experts."""
    result = {}
    for index, own in widths.items():
        layer, fields = describe_model(stock).layers[index], dict(own)
        if layer.experts and "intermediate_size" in fields:
            channels = fields.pop("intermediate_size") // 8 * 8
            fields |= {"num_experts": 2 + index % 3, "moe_intermediate_size": channels}
        result[index] = fields
    return result


def copy_of(workplace: Workplace, folder: Path) -> Path:
    """A copy of the workplace's checkpoint in `folder`, to be changed."""
    copy = folder / "copy"
    shutil.copytree(workplace.checkpoint, copy)
    return copy


def edit_config(checkpoint: Path, **fields: Any) -> None:
    """Sets fields of a checkpoint's config.json."""
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in weight_files(checkpoint) for name, t in load_file(file).items()}


def edit_tensors(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Changes the tensors of a checkpoint in place."""
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})


def truncate_weights(checkpoint: Path) -> None:
    """Removes the last bytes of a checkpoint's weight file."""
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
