"""The run in MLflow, the checkpoint in its registry, the results in the output folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

from zenml import get_step_context

from adapruner.config import RunConfig
from adapruner.errors import UserError
from steps.zenml_support.cache import uncached_step
from steps.zenml_support.workspace import stage

logger = logging.getLogger(__name__)


@uncached_step
def register(config: RunConfig, report: Path, finetuned: Path) -> Annotated[Path, "model_version"]:
    """`model_version.json`: name, version, alias, MLflow run, gate and where the results are.

    A model that failed the gate becomes a version, but the alias stays where it is. Raises
    UserError for a model that predicts nothing, before anything is logged or published.
    """
    from steps.mlflow_support import runs as mlflow_run, tracking
    from steps.publishing import results

    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    refuse_broken(content)
    run = get_step_context().pipeline_run
    tags = mlflow_run.version_tags(content)
    registry = config.registry
    if tags["gate"] == "failed":
        logger.warning("The gate failed, so the version gets no alias: %s", tags["gate_reasons"])
        registry = registry.model_copy(update={"alias": None})
    about = {"pipeline_run_id": str(run.id), "config_hash": tags["config_hash"]}
    statuses = {name: str(step.status) for name, step in run.steps.items() if name != "register"}
    checkpoint = finetuned / "checkpoint"
    with stage("register") as out:
        client = tracking.connect()
        parent = mlflow_run.log_run(client, run.name, about, report, statuses)
        version = mlflow_run.register(client, registry, parent, checkpoint, tags)
        registered = mlflow_run.described(client, registry, parent, version)
        registered["gate"] = tags["gate"]
        target = results.publish(config, report, checkpoint, registered)
        text = json.dumps({**registered, "results": str(target)}, indent=2)
        (out / "model_version.json").write_text(text + "\n", encoding="utf-8")
    return out


def refuse_broken(report: dict[str, Any]) -> None:
    """Raises UserError when a perplexity of the final model is not finite, so null in report.json.

    Whoever follows the alias would be handed a model that can't be used.
    """
    from adapruner.report.format import PERPLEXITY
    from adapruner.report.results import final_model

    final = final_model(report)
    measured = report["metrics"].get(final) or {}
    broken = [name for name, value in measured.items() if PERPLEXITY.match(name) and value is None]
    if broken:
        raise UserError(
            f"the {final} model's {', '.join(broken)} is not a finite number, so it is not "
            "registered; lower pruning.ratio or finetune.learning_rate"
        )
