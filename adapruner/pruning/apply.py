"""From a checkpoint and a plan to a smaller checkpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.choice import load_or_stream
from adapruner.models.streamed.layers import is_streamed
from adapruner.models.streamed.saving import save_layers
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.reconstruction import method_module
from adapruner.pruning.reconstruction.request import Reconstruction, ReconstructionRequest
from adapruner.pruning.semi_structured import sparse_model
from adapruner.pruning.surgery import cut_layers


def prune(
    checkpoint: Path,
    plan: Path,
    pool: Path,
    model: ModelConfig,
    reconstruction: ReconstructionConfig,
    out: Path,
    gram_matrices: Path | None = None,
) -> None:
    """Cuts the checkpoint by the plan in the directory `plan` and writes the smaller one to `out`.

    `gram_matrices` is the directory of the matrices of the trials, for `activations: dense`.
    The weights keep the data type that they are stored in; those that are kept and not updated are
    bit-identical. Raises UnreachableError when the model can't hold the reconstruction's result.
    """
    decided, texts = PruningPlan.read(plan), Pool.read(pool)
    if decided.sparsity is not None:
        sparse = sparse_model(checkpoint, decided, texts, model)
        ckpt.save_checkpoint(sparse, checkpoint, out, ckpt.stored_dtypes(checkpoint))
    else:
        parts = (checkpoint, decided, texts, model, reconstruction, gram_matrices)
        _cut(ReconstructionRequest(*parts), out)
    decided.write_file(out / ckpt.PLAN_FILE)


def _cut(request: ReconstructionRequest, out: Path) -> None:
    """Writes the cut and reconstructed model, in the data type of the checkpoint.

    A streamed model is cut, reconstructed and written layer by layer.
    """
    checkpoint = request.checkpoint
    method = method_module(request.settings.method)
    method.check_supported(ckpt.inspect(checkpoint))
    reconstruction = method.reconstruct(request)
    dtype = ckpt.stored_dtype(checkpoint)
    stored = load_or_stream(checkpoint, request.device, "1 read", dtype)
    done = _corrected(stored, request.plan, reconstruction)
    if is_streamed(stored):
        save_layers(stored, done, checkpoint, out)
    else:
        deque(done, maxlen=0)
        ckpt.save_checkpoint(stored, checkpoint, out, ckpt.stored_dtypes(checkpoint))


def _corrected(model: Any, plan: PruningPlan, reconstruction: Reconstruction) -> Iterator[int]:
    """Cuts and corrects `model`, in place; yields the index of each layer that is done."""
    cut = zip(cut_layers(model, plan), reconstruction.layers, strict=True)
    for index, (modules, correct) in enumerate(cut):
        correct(modules)
        yield index
    for switch in reconstruction.switches:
        setattr(model.config, switch, True)
