"""The dense checkpoint, as safetensors, config and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage


@cached_step
def load_model(source: Path) -> Annotated[Path, "dense_checkpoint"]:
    """A checkpoint directory made from what `source.json` names."""
    from adapruner.models.sources import Source
    from steps.mlflow_support import registered_checkpoints as sources

    named = Source.model_validate_json((source / "source.json").read_text(encoding="utf-8"))
    with stage("load_model") as out:
        sources.materialize(named, out)
    return out
