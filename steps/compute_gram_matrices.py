"""X^T X of the down projections' inputs by domain, which the update of a cut is computed from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.materializer import WithoutWeights, whole
from steps.zenml_support.workspace import stage


@cached_step
def compute_gram_matrices(
    checkpoint: WithoutWeights, pool: Path, model: ModelConfig, is_used: bool
) -> Annotated[Path, "gram_matrices"]:
    """One file per layer; none where the reconstruction does not use them (`is_used`)."""
    from adapruner.data.pool import Pool
    from adapruner.models.streamed.choice import load_or_stream
    from adapruner.pruning.updates.gram_matrices import compute_gram_matrices as compute

    with stage("compute_gram_matrices") as out:
        if is_used:
            samples = Pool.read(pool)
            dense = load_or_stream(whole(checkpoint), model, "1 read")
            compute(dense, samples.update, samples.domain, out)
    return out
