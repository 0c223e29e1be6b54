"""From a checkpoint and a plan to a smaller checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.models import checkpoint as ckpt
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.reconstruction import method_module
from adapruner.pruning.reconstruction.request import ReconstructionRequest
from adapruner.pruning.semi_structured import sparse_model
from adapruner.pruning.surgery import apply


def prune(
    checkpoint: Path,
    plan: Path,
    pool: Path,
    model: ModelConfig,
    reconstruction: ReconstructionConfig,
    out: Path,
) -> None:
    """Cuts the checkpoint by the plan in the directory `plan` and writes the smaller one to `out`.

    The weights keep the data type that they are stored in; those that are kept and not updated are
    bit-identical. Raises UnreachableError when the model can't hold the reconstruction's result.
    """
    decided, texts = PruningPlan.read(plan), Pool.read(pool)
    if decided.sparsity is not None:
        pruned = sparse_model(checkpoint, decided, texts, model)
    else:
        pruned = _cut(ReconstructionRequest(checkpoint, decided, texts, model, reconstruction))
    ckpt.save_checkpoint(pruned, checkpoint, out)
    decided.write_file(out / ckpt.PLAN_FILE)


def _cut(request: ReconstructionRequest) -> Any:
    """The cut and reconstructed model, in the data type of the checkpoint."""
    checkpoint = request.checkpoint
    method = method_module(request.settings.method)
    method.check_supported(ckpt.inspect(checkpoint))
    correct = method.reconstruct(request)
    stored = ckpt.load_model(checkpoint, request.device, dtype=ckpt.stored_dtype(checkpoint))
    apply(stored, request.plan)
    correct(stored)
    return stored
