"""The dense checkpoint, as safetensors, config and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def load_model(source: Path) -> Annotated[Path, "dense_checkpoint"]:
    """The checkpoint that `source.json` in the directory `source` names, as a directory."""
    from adapruner.models.sources import CheckpointSource
    from adapruner.pruning.proof import prove
    from steps.mlflow_support import registered_checkpoints

    resolved = CheckpointSource.read(source)
    with stage("load_model") as out:
        registered_checkpoints.materialize(resolved, out)
        if resolved.family == "auto":
            prove(out)
    return out
