"""The cut, for good: a checkpoint and a plan go in, a smaller checkpoint comes out."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from adapruner import checkpoint as ckpt
from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.plan import FILE, read_plan
from adapruner.reconstruction import apply_and_update
from adapruner.surgery import apply


def prune(
    checkpoint: Path,
    plan: Path,
    pool: Path,
    model: ModelConfig,
    reconstruction: ReconstructionConfig,
    out: Path,
) -> None:
    """Cuts the checkpoint by the plan in the directory `plan` and writes the smaller one to `out`.

    The written weights have the type that they were stored in; what is not updated is bit for bit
    what it was.
    """
    decided = read_plan(plan / FILE)
    if reconstruction.method == "none":
        cut = ckpt.load_model(checkpoint, model, dtype="auto")
        apply(cut, decided)
    else:
        cut = ckpt.load_model(checkpoint, model)
        samples = load_file(pool / "pool.safetensors")["update"]
        apply_and_update(cut, decided, samples, reconstruction.ridge)
        cut = cut.to(ckpt.stored_dtype(checkpoint))
    ckpt.save(cut, checkpoint, out)
    decided.write(out / ckpt.PLAN_FILE)
