"""The final checkpoint in the formats of other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import ExportConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.materializer import WithoutWeights, whole
from steps.zenml_support.workspace import stage


@cached_step
def export(checkpoint: WithoutWeights, config: ExportConfig) -> Annotated[Path, "exports"]:
    """One file or directory for each format of `export.to`; none by default."""
    from adapruner.export import format_module
    from adapruner.export.export import export as write
    from adapruner.models.groups import GROUPS_FILE

    if config.to:
        whole(checkpoint)
    groups = checkpoint / GROUPS_FILE
    with stage("export") as out:
        for to in config.to:
            tensor_type = config.type if to == "gguf" else None
            name = format_module(to).file_name("model", tensor_type)
            write(
                checkpoint / "checkpoint",
                to,
                tensor_type,
                out / name,
                groups if groups.is_file() else None,
            )
    return out
