"""Recovery method `ast`: the weights of all projections and their 2:4 masks, trained together.

Adaptive Sparse Trainer, arXiv 2407.20584. Training starts from the dense weights with the masks of
the pruned checkpoint, see `recovery.sparse.masks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapruner.models.semi_structured import Owner, check_sparse, mask_of, projections
from adapruner.models.storage import checkpoint as ckpt
from adapruner.progress import announce
from adapruner.recovery.finetune import RecoveryRequest
from adapruner.recovery.results import RecoveryResult
from adapruner.recovery.sparse.branch import add_branch, save_branch
from adapruner.recovery.sparse.masks import MaskedWeights
from adapruner.recovery.training.training import train
from adapruner.recovery.training.training_data import result_of, training_data

BYTES_PER_WEIGHT = 17
"""Of training: float32 weight, gradient and two moments of the optimizer, and the mask."""


def recover(request: RecoveryRequest, out: Path) -> RecoveryResult:
    """Trains on the fine-tune split and writes the sparse checkpoint to `out`.

    Shadow weights are float32, computation has the configured data type, and the result that of the
    pruned checkpoint. With `finetune.branch_rank` the branches are in its folder `adapter`. Raises
    UserError as `lora`, and ValueError before a projection that is not 2:4 is written.
    """
    settings = request.finetune
    data = training_data(request)
    kept = _masks(request)
    model = ckpt.load_model(request.dense, request.model, dtype=torch.float32)
    owners = projections(model)
    _announce(owners)
    torch.manual_seed(request.seed)
    trained = add_branch(model, settings.branch_rank, kept) if settings.branch_rank else model
    masked = MaskedWeights.put(
        owners, kept, settings.steps, settings.mask_steps, settings.mask_decay
    )
    dtype = getattr(torch, ckpt.compute_dtype(request.model))
    device = ckpt.device_of(request.model).type
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        curve = train(trained, data, settings, request.seed, masked.before_step)
    weights = masked.weights()
    branch_params = save_branch(trained, out) if settings.branch_rank else 0
    del model, trained, owners, masked  # two models need not fit in memory
    _save(weights, request, out)
    return result_of(request, data, curve).model_copy(update={"branch_params": branch_params})


def _masks(request: RecoveryRequest) -> dict[str, Tensor]:
    """The masks of the pruned checkpoint."""
    pruned = ckpt.load_model(request.checkpoint, request.model)
    return {n: mask_of(getattr(*owner).abs()).cpu() for n, owner in projections(pruned).items()}


def _announce(owners: dict[str, Owner]) -> None:
    count = sum(getattr(*owner).numel() for owner in owners.values())
    announce(
        f"ast: {count:,} weights of projections in float32, "
        f"{count * BYTES_PER_WEIGHT / 2**30:.1f} GiB with gradients, optimizer and masks"
    )


def _save(weights: dict[str, Tensor], request: RecoveryRequest, out: Path) -> None:
    checkpoint = request.checkpoint
    model: Any = ckpt.load_model(checkpoint, request.model, dtype=ckpt.stored_dtype(checkpoint))
    for name, weight in weights.items():
        model.get_parameter(name).copy_(weight)
    check_sparse(model)
    ckpt.save_checkpoint(model, checkpoint, out, ckpt.stored_dtypes(checkpoint))
