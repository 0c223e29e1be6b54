"""The cut, for good: a checkpoint and a plan go in, a smaller checkpoint comes out."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from adapruner.pruning.reconstruction import bias
from adapruner.models import checkpoint as ckpt
from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.pruning.plan import FILE, read_plan
from adapruner.progress import announce
from adapruner.pruning.reconstruction.least_squares import apply_and_update
from adapruner.models.structures import layer_modules
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

    The weights keep the type that they are stored in; those that are kept and not updated are bit
    for bit what they were.
    """
    decided = read_plan(plan / FILE)
    updates, biases = [], {}
    if reconstruction.method == "least_squares":
        texts = load_file(pool / "pool.safetensors")
        samples, fresh = texts["update"], texts["objective"]
        announce(f"update: {len(samples)} x {samples.shape[1]} tokens twice through every layer")
        computed = ckpt.load_model(checkpoint, model)
        apply_and_update(computed, decided, samples, reconstruction.ridge, fresh, "update")
        updates = [layer.down.weight.detach().cpu() for layer in layer_modules(computed)]
        del computed
    if reconstruction.method == "bias":
        bias.refuse_without_biases(ckpt.inspect(checkpoint))
        samples = load_file(pool / "pool.safetensors")["calibration"]
        biases = bias.compensation(ckpt.load_model(checkpoint, model), decided, samples)
    stored = ckpt.load_model(checkpoint, model, dtype=ckpt.stored_dtype(checkpoint))
    cut = [layer.down for layer in layer_modules(stored)]
    dense = [linear.in_features for linear in cut]
    apply(stored, decided)
    for linear, width, weight in zip(cut, dense, updates, strict=False):
        if linear.in_features < width:
            linear.weight.data.copy_(weight)
    bias.add(stored, biases)
    ckpt.save(stored, checkpoint, out)
    decided.write(out / ckpt.PLAN_FILE)
