"""Recovery method `grouped`: the projections in 4 bit, adapters that move their groups' minima.

QA-LoRA (arXiv 2309.14717) with floating-point minima. Embeddings, head and norms stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapruner.models.groups import GROUPS_FILE, write_groups
from adapruner.models.storage import checkpoint as ckpt
from adapruner.recovery.finetune import RecoveryRequest
from adapruner.recovery.groups.model import grouped_layers, load_grouped
from adapruner.recovery.results import RecoveryResult
from adapruner.recovery.training.training import train
from adapruner.recovery.training.training_data import result_of, training_data


def recover(request: RecoveryRequest, out: Path) -> RecoveryResult:
    """Trains on the fine-tune split and writes what `write_merged` does.

    Raises UserError for a model that can't be tuned in groups, and where `lora` does.
    """
    data = training_data(request)
    torch.manual_seed(request.seed)
    model = load_grouped(request.checkpoint, request.model, request.finetune)
    curve = train(model, data, request.finetune, request.seed)
    write_merged(model, request.checkpoint, out)
    return result_of(request, data, curve)


def write_merged(model: Any, checkpoint: Path, out: Path) -> None:
    """Writes the model as a checkpoint to `out`, and its groups beside it, to `GROUPS_FILE`.

    The weights of the checkpoint are those of the groups, rounded to the data type in which
    `checkpoint`, from which the model was loaded, stores them.
    """
    groups = {f"{name}.weight": layer.merged() for name, layer in grouped_layers(model).items()}

    def merge(name: str, weight: Tensor) -> Tensor:
        return groups[name].dense() if name in groups else weight

    ckpt.rewrite_checkpoint(checkpoint, out, merge)
    write_groups(groups, out.with_name(GROUPS_FILE))
