"""Recovery method `grouped`: the projections in 4 bit, adapters that move their groups' minima.

QA-LoRA (arXiv 2309.14717) with floating-point minima. Embeddings, head and norms stay as they are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from adapruner.models import checkpoint as ckpt
from adapruner.models.groups import write_groups
from adapruner.recovery.finetune import GROUPS_FILE, RecoveryRequest, RecoveryResult
from adapruner.recovery.grouped_model import grouped_layers, load_grouped
from adapruner.recovery.training import train
from adapruner.recovery.training_data import result_of, training_data


def recover(request: RecoveryRequest, out: Path) -> RecoveryResult:
    """Trains on the fine-tune split and writes the merged checkpoint to `out`.

    The groups themselves are written beside it, to `GROUPS_FILE`; the checkpoint has their values,
    rounded to the data type in which it stores weights. Raises UserError for a model without groups
    and where `lora` does.
    """
    data = training_data(request)
    torch.manual_seed(request.seed)
    model = load_grouped(request.checkpoint, request.model, request.finetune)
    curve = train(model, data, request.finetune, request.seed)
    groups = {f"{name}.weight": layer.merged() for name, layer in grouped_layers(model).items()}
    del model

    def merge(name: str, weight: Tensor) -> Tensor:
        return groups[name].dense() if name in groups else weight

    ckpt.rewrite_checkpoint(request.checkpoint, out, merge)
    write_groups(groups, out.with_name(GROUPS_FILE))
    return result_of(request, data, curve)
