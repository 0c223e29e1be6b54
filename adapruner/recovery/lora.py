"""Recovery method `lora`: adapters on every projection, merged into the weights after training.

LoRA: arXiv 2106.09685.
"""

from __future__ import annotations

from pathlib import Path

import torch

from adapruner.models.storage import checkpoint as ckpt
from adapruner.progress import announce
from adapruner.recovery.adapters import add_adapters, drop_frozen_weights, weight_changes
from adapruner.recovery.distributed.processes import recover_by_processes
from adapruner.recovery.finetune import RecoveryRequest
from adapruner.recovery.results import RecoveryResult
from adapruner.recovery.training.training import train
from adapruner.recovery.training.training_data import result_of, training_data


def recover(request: RecoveryRequest, out: Path) -> RecoveryResult:
    """Trains LoRA adapters on the fine-tune split and writes the merged checkpoint to `out`.

    Training uses the configured data type; the merged weights keep the type in which the checkpoint
    stores them. Raises UserError for a split with fewer examples than a batch, and at the first
    loss that is not finite.
    """
    settings, checkpoint = request.finetune, request.checkpoint
    if request.is_dealt_out:
        if not ckpt.inspect(checkpoint).has_experts:
            return recover_by_processes(request, out)
        announce("fine-tuning: in one process, the adapters of experts can't be dealt out")
    data = training_data(request)
    torch.manual_seed(request.seed)
    adapted = add_adapters(ckpt.load_model(checkpoint, request.model), settings)
    curve = train(adapted, data, settings, request.seed)
    drop_frozen_weights(adapted)  # two models need not fit in memory
    merged = ckpt.load_model(checkpoint, request.model, dtype=ckpt.stored_dtype(checkpoint))
    for name, change in weight_changes(adapted).items():
        weight = merged.get_parameter(name)
        weight.copy_(weight.float() + change().to(weight.device))
    ckpt.save_checkpoint(merged, checkpoint, out, ckpt.stored_dtypes(checkpoint))
    return result_of(request, data, curve)
