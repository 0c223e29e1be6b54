"""The pruning plan, applied: a smaller checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig, ReconstructionConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.materializer import WithoutWeights, whole
from steps.zenml_support.workspace import stage


@cached_step
def prune(
    checkpoint: Path,
    plan: Path,
    pool: Path,
    gram_matrices: WithoutWeights,
    model: ModelConfig,
    reconstruction: ReconstructionConfig,
) -> Annotated[Path, "pruned_checkpoint"]:
    """A checkpoint directory with the plan beside the weights."""
    from adapruner.pruning.apply import prune as apply_plan

    if reconstruction.is_by_matrices:
        whole(gram_matrices)
    with stage("prune") as out:
        apply_plan(checkpoint, plan, pool, model, reconstruction, out, gram_matrices)
    return out
