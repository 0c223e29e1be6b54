"""Recovery method `lora`: adapters on every projection, merged into the weights after training.

LoRA: arXiv 2106.09685.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapruner.config import FinetuneConfig
from adapruner.models import checkpoint as ckpt
from adapruner.models.experts import EXPERT_PARAMETERS
from adapruner.models.structures import describe_model
from adapruner.recovery.finetune import RecoveryRequest, RecoveryResult
from adapruner.recovery.training import train
from adapruner.recovery.training_data import result_of, training_data


def recover(request: RecoveryRequest, out: Path) -> RecoveryResult:
    """Trains LoRA adapters on the fine-tune split and writes the merged checkpoint to `out`.

    Training uses the configured data type; the merged weights keep the type in which the checkpoint
    stores them. Raises UserError for a split with fewer examples than a batch, and at the first
    loss that is not finite.
    """
    settings, checkpoint = request.finetune, request.checkpoint
    data = training_data(request)
    torch.manual_seed(request.seed)
    adapted = _add_adapters(ckpt.load_model(checkpoint, request.model), settings)
    curve = train(adapted, data, settings, request.seed)
    changes = _weight_changes(adapted)
    del adapted  # two models need not fit in memory
    merged = ckpt.load_model(checkpoint, request.model, dtype=ckpt.stored_dtype(checkpoint))
    for name, change in changes.items():
        weight = merged.get_parameter(name)
        weight.copy_(weight.float() + change.to(weight.device))
    ckpt.save_checkpoint(merged, checkpoint, out, ckpt.stored_dtypes(checkpoint))
    return result_of(request, data, curve)


def _add_adapters(model: Any, settings: FinetuneConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    structures = describe_model(model)
    family, experts = structures.family, None
    if structures.has_experts:
        experts = [f"{family.experts}.{name}" for name in EXPERT_PARAMETERS]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=[name.rsplit(".", 1)[-1] for name in family.projections],
        target_parameters=experts,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _weight_changes(adapted: Any) -> dict[str, Tensor]:
    """Name of a weight in the model without adapters -> its change, float32 on the CPU."""
    changes = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "get_delta_weight"):
            owner = name.removeprefix("base_model.model.").removesuffix(".base_layer")
            weight = getattr(module, "parameter_name", "weight")
            changes[f"{owner}.{weight}"] = module.get_delta_weight("default").float().cpu()
    return changes
