"""The run in MLflow, the checkpoint in its registry, the results in the output folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from zenml import get_step_context

from adapruner.config import RunConfig
from adapruner.files import read_json
from steps.zenml_support.cache import uncached_step
from steps.zenml_support.workspace import runs_in_containers, stage

logger = logging.getLogger(__name__)


@uncached_step
def register(
    config: RunConfig, report: Path, finetuned: Path, exports: Path
) -> Annotated[Path, "model_version"]:
    """`model_version.json`. A model that failed the gate is registered without the alias.

    Raises UserError for a model without a finite perplexity, before anything is logged or
    published.
    """
    from steps.mlflow_support import model_versions, tracking
    from steps.mlflow_support.runs import log_exports, log_run
    from steps.publishing.results import CHECKPOINT, publish, record_of

    content = read_json(report / "report.json")
    model_versions.check_usable(content)
    tags, registry = model_versions.version_tags(content), config.registry
    if tags["gate"] == "failed":
        logger.warning("The gate failed, so the version gets no alias: %s", tags["gate_reasons"])
        registry = registry.model_copy(update={"alias": None})
    run, checkpoint = get_step_context().pipeline_run, finetuned / CHECKPOINT
    run_tags = {"pipeline_run_id": str(run.id), "config_hash": tags["config_hash"]}
    statuses = {name: str(step.status) for name, step in run.steps.items() if name != "register"}
    with stage("register") as out:
        client = tracking.connect()
        run_id = log_run(client, run.name, run_tags, report, statuses)
        log_exports(client, run_id, exports)
        unnamed = registry.model_copy(update={"alias": None})
        version = model_versions.register(client, unnamed, run_id, checkpoint, tags)
        record = record_of(client, version, registry.alias, run_id, tags["gate"])
        if runs_in_containers():
            record.write(out)  # a file in a pod is lost; `adapruner compress --stack` writes it
        else:
            target = publish(config, report, checkpoint, exports, record)
            record.model_copy(update={"results": str(target)}).write(out)
        # Last: who loads the alias gets nothing of a run whose results could not be written.
        model_versions.set_alias(client, registry, version)
    return out
