"""The plan applied: a smaller checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ModelConfig
from steps.cache import cached_step
from steps.workspace import stage


@cached_step
def prune(checkpoint: Path, plan: Path, model: ModelConfig) -> Annotated[Path, "pruned_checkpoint"]:
    """A checkpoint directory with the plan beside the weights."""
    from adapruner import surgery

    with stage("prune") as out:
        surgery.prune(checkpoint, plan, model, out)
    return out
