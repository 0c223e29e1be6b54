"""The dense checkpoint, as safetensors, config and tokenizer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from adapruner.config import ServingConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.workspace import stage

logger = logging.getLogger(__name__)


@cached_step
def load_model(source: Path, serving: ServingConfig) -> Annotated[Path, "dense_checkpoint"]:
    """The checkpoint that `source.json` in the directory `source` names, as a directory.

    Raises UserError where the runtime or the exports of the run can't hold a result, and for
    settings that do not suit the model.
    """
    from adapruner.export.planned import check_planned
    from adapruner.models.groups import check_groups, narrow_warning
    from adapruner.models.storage.checkpoint import check_context, check_prompts, inspect
    from adapruner.models.storage.sources import CheckpointSource
    from adapruner.models.structures import check_dropout
    from adapruner.pruning.proof import prove
    from adapruner.pruning.target import PruningTarget
    from steps.mlflow_support import registered_checkpoints

    resolved = CheckpointSource.read(source)
    with stage("load_model") as out:
        registered_checkpoints.materialize(resolved, out)
        prove(out)
        structures, warnings = inspect(out), []
        check_context(out, serving.context)
        if serving.has_dropout:
            check_dropout(structures)
        if serving.group_size:
            check_groups(structures, serving.group_size)
        for pruning in serving.results:
            if serving.group_size:
                warnings += narrow_warning(pruning.round_to, serving.group_size)
            target = PruningTarget(structures, pruning)
            target.check_layout()
            target.check_experts()
            warnings += check_planned(out, pruning, target.attention != "none", serving.to)
        check_prompts(out, serving.prompts)
        for warning in dict.fromkeys(warnings):
            logger.warning(warning)
    return out
