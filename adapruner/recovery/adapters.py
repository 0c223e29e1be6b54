"""LoRA adapters on every projection, and the changes of the weights that they stand for.

LoRA: arXiv 2106.09685.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from adapruner.config import FinetuneConfig
from adapruner.models.experts import EXPERT_PARAMETERS
from adapruner.models.structures import describe_model


def add_adapters(model: Any, settings: FinetuneConfig) -> Any:
    """The model with trainable adapters, as a PEFT model."""
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


def weight_changes(adapted: Any) -> dict[str, Callable[[], Tensor]]:
    """Name of a weight in the model without adapters -> what computes its change.

    A change is float32 on the CPU.
    """
    changes: dict[str, Callable[[], Tensor]] = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "get_delta_weight"):
            owner = name.removeprefix("base_model.model.").removesuffix(".base_layer")
            weight = getattr(module, "parameter_name", "weight")
            changes[f"{owner}.{weight}"] = partial(_change, module)
    return changes


def drop_frozen_weights(adapted: Any) -> None:
    """Frees the weights that are not trained. `weight_changes` does not read them."""
    for parameter in adapted.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.new_empty(0)


def _change(module: Any) -> Tensor:
    change: Tensor = module.get_delta_weight("default")
    return change.float().cpu()
