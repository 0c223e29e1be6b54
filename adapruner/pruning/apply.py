"""From a checkpoint and a plan to a smaller checkpoint."""

from __future__ import annotations

from pathlib import Path

from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.models import checkpoint as ckpt
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.reconstruction import method_module
from adapruner.pruning.reconstruction.request import ReconstructionRequest
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
    decided = PruningPlan.read(plan)
    method = method_module(reconstruction.method)
    method.check_supported(ckpt.inspect(checkpoint))
    correct = method.reconstruct(
        ReconstructionRequest(checkpoint, decided, Pool.read(pool), model, reconstruction)
    )
    stored = ckpt.load_model(checkpoint, model, dtype=ckpt.stored_dtype(checkpoint))
    apply(stored, decided)
    correct(stored)
    ckpt.save_checkpoint(stored, checkpoint, out)
    decided.write_file(out / ckpt.PLAN_FILE)
