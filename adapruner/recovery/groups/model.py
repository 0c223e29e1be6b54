"""A checkpoint's model with its projections in 4 bit, loaded one weight at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from torch import nn
from transformers import AutoModelForCausalLM

from adapruner.config import DeviceConfig, FinetuneConfig
from adapruner.errors import UserError
from adapruner.models.groups import check_groups, quantize
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage.weights import COMPUTED_SUFFIX, stored_tensors, weight_files
from adapruner.models.structures import describe_model
from adapruner.progress import announce
from adapruner.recovery.groups.linear import ADAPTERS, GroupedLinear


def load_grouped(checkpoint: Path, model: DeviceConfig, settings: FinetuneConfig) -> Any:
    """The causal language model of a checkpoint in eval mode; only its adapters have gradients.

    Projections are `GroupedLinear`. One whose input width is no multiple of the group size stays as
    it is, frozen. Raises UserError for a model that `check_groups` refuses, and where none fits.
    """
    structures, device = ckpt.inspect(checkpoint), ckpt.device_of(model)
    check_groups(structures, settings.group_size)
    dtype = getattr(torch, ckpt.compute_dtype(model))
    config = ckpt.read_config(checkpoint)
    build: Any = AutoModelForCausalLM.from_config
    with init_empty_weights(include_buffers=False):
        loaded = build(config, dtype=dtype, trust_remote_code=False)
    projections = _projections(loaded)
    wide = {n for n, linear in projections.items() if linear.in_features % settings.group_size}
    for file in weight_files(checkpoint):
        for name, stored in stored_tensors(file):
            owner, _, part = name.rpartition(".")
            value = stored.to(device)
            if part == "weight" and owner in projections.keys() - wide:
                _put(loaded, owner, value, settings)
            elif not name.endswith(COMPUTED_SUFFIX):
                set_module_tensor_to_device(loaded, name, device, value, dtype)
    loaded.tie_weights()
    for name, weight in loaded.named_parameters():
        weight.requires_grad_(name.rpartition(".")[2] in ADAPTERS)
    if len(wide) == len(projections):
        raise UserError(
            f"finetune.method grouped: no projection of '{checkpoint}' has inputs of a multiple of "
            f"{settings.group_size}; use lora"
        )
    if wide:
        announce(
            f"{len(wide)} of {len(projections)} projections stay as they are, since their inputs "
            f"are no multiple of {settings.group_size}: pruning.target: llama.cpp gives such widths"
        )
    return loaded.to(device).eval()


def grouped_layers(model: Any) -> dict[str, GroupedLinear]:
    """Name -> layer, for all that are in 4 bit."""
    return {n: m for n, m in model.named_modules() if isinstance(m, GroupedLinear)}


def _projections(model: Any) -> dict[str, nn.Linear]:
    """Name -> linear layer, for the projections of all decoder layers."""
    family = describe_model(model).family
    depth = len(model.get_submodule(family.layers))
    names = [f"{family.layers}.{i}.{path}" for i in range(depth) for path in family.projections]
    return {name: model.get_submodule(name) for name in names}


def _put(model: Any, name: str, weight: torch.Tensor, settings: FinetuneConfig) -> None:
    """Replaces a linear layer by one in 4 bit; its bias, if it has one, comes later."""
    linear = model.get_submodule(name)
    groups = quantize(weight, settings.group_size)
    scale = settings.alpha / settings.rank
    model.set_submodule(name, GroupedLinear(groups, linear.bias, settings.rank, scale))
