"""The dense checkpoint, as safetensors, config and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from steps.cache import cached_step
from steps.workspace import stage


@cached_step
def load_model(source: Path) -> Annotated[Path, "dense_checkpoint"]:
    """A checkpoint directory made from what `source.json` names."""
    from adapruner.sources import Source
    from steps import sources

    named = Source.model_validate_json((source / "source.json").read_text(encoding="utf-8"))
    with stage("load_model") as out:
        sources.materialize(named, out)
    return out
