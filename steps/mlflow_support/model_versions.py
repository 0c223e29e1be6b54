"""Model versions of the MLflow registry: how a checkpoint is registered, and its tags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from adapruner.config import RegistryConfig
from adapruner.errors import UserError
from adapruner.report import gate
from adapruner.report.format import PERPLEXITY
from adapruner.report.results import final_model, mean_retention
from steps.mlflow_support.runs import evaluation_metrics
from steps.mlflow_support.tracking import MISSING, unless_it_exists
from steps.zenml_support.workspace import result_files

CHECKPOINT = "checkpoint"
"""The folder of a run's artifacts that is the source of its model version."""
IDENTITY_TAGS = ("checkpoint_hash", "config_hash")
GATE_TAGS = ("gate", "gate_reasons")


def check_usable(report: Mapping[str, Any]) -> None:
    """Raises UserError when a perplexity of the final model is not finite (null in report.json)."""
    final = final_model(report)
    metrics = report["metrics"][final] or {}
    broken = [name for name, value in metrics.items() if PERPLEXITY.match(name) and value is None]
    if broken:
        raise UserError(
            f"the {final} model's {', '.join(broken)} is not a finite number, so it is not "
            "registered; lower pruning.ratio or finetune.learning_rate"
        )


def register(
    client: MlflowClient,
    registry: RegistryConfig,
    run: str,
    checkpoint: Path,
    tags: Mapping[str, str],
) -> ModelVersion:
    """The model version of this checkpoint; it gets the alias of `registry` unless that is None.

    An existing version with the same checkpoint and config hash, whose files still exist, is used
    instead of a new one; its gate tags are set to those of this run.
    """
    version = _existing_version(client, registry.name, tags)
    if version is None:
        for path in result_files(checkpoint):
            client.log_artifact(run, str(path), CHECKPOINT)
        version = client.create_model_version(
            registry.name,
            source=f"{client.get_run(run).info.artifact_uri}/{CHECKPOINT}",
            run_id=run,
            tags=dict(tags),
        )
    else:
        for key in GATE_TAGS:
            client.set_model_version_tag(registry.name, version.version, key, tags[key])
    set_alias(client, registry, version)
    return version


def set_alias(client: MlflowClient, registry: RegistryConfig, version: ModelVersion) -> None:
    """Moves the alias of `registry` to a version, unless it is None."""
    if registry.alias is not None:
        client.set_registered_model_alias(registry.name, registry.alias, version.version)


def is_registered(
    client: MlflowClient, name: str, version: str, alias: str | None, tags: Mapping[str, str]
) -> bool:
    """Whether the registry has this version of a run with `tags`, its files and its alias.

    The alias is not looked at where it is None.
    """
    try:
        found = client.get_model_version(name, version)
        named = client.get_model_version_by_alias(name, alias) if alias else found
    except MlflowException:
        return False
    # A number alone may be that of another checkpoint: a deleted model's numbers start again.
    is_same = all(found.tags.get(key) == tags[key] for key in (*IDENTITY_TAGS, *GATE_TAGS))
    return is_same and str(named.version) == version and _has_files(client, found)


def version_tags(report: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a model version: its source, its hashes, its metrics and the gate's verdict."""
    provenance, ratio = report["provenance"], report["ratio"]
    tags = {
        "source": provenance["source"]["uri"],
        "source_hash": provenance["hashes"]["source"],
        "config_hash": provenance["config_hash"],
        "settings_hash": provenance["settings_hash"],
        **_source_version(provenance["source"]),
        "checkpoint_hash": provenance["hashes"]["checkpoint"],
        "ratio.requested": ratio["requested"],
        "ratio.achieved": ratio["achieved"],
        "gate": gate.state(report["gate"]),
        "gate_reasons": gate.brief_reasons(report["gate"]),
    }
    if (retention := mean_retention(report)) is not None:
        tags["mean_retention"] = retention
    return {key: str(value) for key, value in {**tags, **evaluation_metrics(report)}.items()}


def _source_version(source: Mapping[str, Any]) -> dict[str, str]:
    """The model version that was compressed; empty for any other source."""
    if not source["uri"].startswith("models:"):
        return {}
    name, _, version = source["revision"].rpartition("/")
    return {"source_name": name, "source_version": version}


def _existing_version(
    client: MlflowClient, name: str, tags: Mapping[str, str]
) -> ModelVersion | None:
    """The newest usable version with the hashes of `tags`.

    Creates the registered model if it does not exist.
    """
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        with unless_it_exists():
            client.create_registered_model(name)
    same_hashes = " and ".join(f"tags.{key} = '{tags[key]}'" for key in IDENTITY_TAGS)
    versions = client.search_model_versions(f"name = '{name}' and {same_hashes}")
    newest_first = sorted(versions, key=lambda version: int(version.version), reverse=True)
    return next((version for version in newest_first if _has_files(client, version)), None)


def _has_files(client: MlflowClient, version: ModelVersion) -> bool:
    try:
        files = client.list_artifacts(version.run_id or "", CHECKPOINT)
        return any(file.path.endswith("config.json") for file in files)
    except (MlflowException, OSError):
        return False
