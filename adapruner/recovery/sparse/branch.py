"""A low-rank branch beside each sparse projection, as SLoRB in AST (arXiv 2407.20584).

y = (m * W) x + B A x. A sums r groups of consecutive inputs, and B starts with the means of the
masked weights in each group, so that the branch begins as a coarse copy of what the mask removes.
Both are trained. It is a LoRA adapter of the sparse model, and saved as one: merged into the
weights, it would fill the zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapruner.errors import UserError
from adapruner.files import read_json, write_json
from adapruner.models.storage.checkpoint import BRANCH
from adapruner.models.structures import describe_model

ADAPTER = "default"


def add_branch(model: Any, rank: int, kept: Mapping[str, Tensor]) -> Any:
    """`model`, whose weights are dense, with the branches of the weights that `kept` masks.

    Raises UserError for a model with experts.
    """
    from peft import LoraConfig, get_peft_model

    structures = describe_model(model)
    if structures.has_experts:
        raise UserError("finetune.branch_rank: experts have no branch; set it to 0")
    targets = [name.rsplit(".", 1)[-1] for name in structures.family.projections]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, task_type="CAUSAL_LM")
    branched = get_peft_model(model, config)
    for name, module in branched.named_modules():
        if hasattr(module, "lora_A"):
            weight = module.base_layer.weight.detach()
            mask = kept[f"{name.removeprefix('base_model.model.')}.weight"].to(weight.device)
            sums = group_sums(weight.shape[1], rank).to(weight)
            removed = weight.masked_fill(mask, 0)
            module.lora_A[ADAPTER].weight.data.copy_(sums)
            module.lora_B[ADAPTER].weight.data.copy_(removed @ sums.T / sums.sum(1))
    return branched


def group_sums(inputs: int, rank: int) -> Tensor:
    """[rank, inputs]: 1 where an input is in a group; sizes of groups differ by at most 1.

    Raises UserError for more groups than inputs.
    """
    if rank > inputs:
        raise UserError(
            f"finetune.branch_rank {rank}: a projection has {inputs} inputs; set it lower"
        )
    group = torch.arange(inputs) * rank // inputs
    return (group == torch.arange(rank).unsqueeze(1)).float()


def save_branch(branched: Any, out: Path) -> int:
    """Writes the branches as the adapter in the folder `adapter` of `out`; their parameters."""
    folder = out / BRANCH
    branched.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    config = read_json(folder / "adapter_config.json")
    config["base_model_name_or_path"] = None  # a path of this machine
    write_json(folder / "adapter_config.json", config)
    parameters = [weight for name, weight in branched.named_parameters() if ".lora_" in name]
    return sum(weight.numel() for weight in parameters)
