"""A compression as MLflow knows it: a parent run, a child run a step, a registered version."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from adapruner.report import gate
from adapruner.config import RegistryConfig
from adapruner.report.format import final_model
from steps.mlflow_support import tracking
from steps.zenml_support.workspace import TIMING

PARAM_LENGTH = 6000
GATE_TAGS = ("gate", "gate_reasons")
MEASURED = ("params", "speed", "cost", "behaviour", "retention", "timings_s")
"""Sections of the report whose numbers are metrics of the run."""
EVALUATIONS = {
    "evaluate_dense": "dense",
    "evaluate_pruned": "pruned",
    "evaluate_finetuned": "finetuned",
}


def log_run(
    client: MlflowClient, name: str, tags: Mapping[str, str], report: Path, steps: Mapping[str, str]
) -> str:
    """Log the stage directory `report` as one parent run; its id.

    `steps` maps each step that came before to the status it ended with (completed or cached).
    """
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    experiment = tracking.experiment_id(client)
    run = client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id
    try:
        _log_values(client, run, _params(content), _metrics(content))
        for path in _files(report):
            client.log_artifact(run, str(path))
        client.log_dict(run, content["provenance"], "provenance.json")
        if trials := content["search"]["trials"]:
            client.log_table(run, _columns(trials), "trials.json")
        for step, status in steps.items():
            _log_step(client, experiment, run, step, status, content)
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)
    return str(run)


def register(
    client: MlflowClient,
    registry: RegistryConfig,
    run: str,
    checkpoint: Path,
    tags: Mapping[str, str],
) -> ModelVersion:
    """The model version of this checkpoint, with the alias on it where the registry's is not None.

    A version with the same checkpoint and config hash among its tags, whose files are still there,
    is taken instead of making a second one; its tags then say what was found now.
    """
    version = _registered(client, registry.name, tags)
    if version is None:
        for path in _files(checkpoint):
            client.log_artifact(run, str(path), "checkpoint")
        version = client.create_model_version(
            registry.name,
            source=f"{client.get_run(run).info.artifact_uri}/checkpoint",
            run_id=run,
            tags=dict(tags),
        )
    else:
        for key in GATE_TAGS:
            client.set_model_version_tag(registry.name, version.version, key, tags[key])
    if registry.alias is not None:
        client.set_registered_model_alias(registry.name, registry.alias, version.version)
    return version


def described(
    client: MlflowClient, registry: RegistryConfig, run: str, version: ModelVersion
) -> dict[str, str | None]:
    """What model_version.json says of a registered version; the URI is without its password."""
    return {
        "name": version.name,
        "version": str(version.version),
        "alias": registry.alias,
        "run_id": run,
        "tracking_uri": tracking.redacted(client.tracking_uri),
    }


def version_tags(report: Mapping[str, Any]) -> dict[str, str]:
    """Where a version came from and how good it is, for those who look at the registry alone."""
    facts, params = report["provenance"], report["params"]
    tags = {
        "source": facts["source"]["given"],
        "source_hash": facts["hashes"]["source"],
        "config_hash": facts["config_hash"],
        "settings_hash": facts["settings_hash"],
        **_lineage(facts["source"]),
        "checkpoint_hash": facts["hashes"]["checkpoint"],
        "ratio_requested": params["ratio_requested"],
        "ratio_achieved": params["ratio_achieved"],
        "gate": gate.state(report.get("gate")),
        "gate_reasons": gate.brief_reasons(report.get("gate") or {"checks": []}),
    }
    retention = (report.get("retention") or {}).get(final_model(report)) or {}
    if (mean := (retention.get("mean") or {}).get("retention")) is not None:
        tags["mean_retention"] = mean
    return {key: str(value) for key, value in {**tags, **_measured(report)}.items()}


def _lineage(source: Mapping[str, Any]) -> dict[str, str]:
    """The registered version that was compressed, when it was one."""
    if not source["given"].startswith("models:"):
        return {}
    name, _, version = source["revision"].rpartition("/")
    return {"source_name": name, "source_version": version}


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name != TIMING)


def _registered(client: MlflowClient, name: str, tags: Mapping[str, str]) -> ModelVersion | None:
    """The newest usable version with the hashes of `tags`; makes the registered model if absent."""
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
        return None
    same = " and ".join(f"tags.{k} = '{tags[k]}'" for k in ("checkpoint_hash", "config_hash"))
    found = client.search_model_versions(f"name = '{name}' and {same}")
    newest_first = sorted(found, key=lambda v: int(v.version), reverse=True)
    return next((v for v in newest_first if _has_files(client, v)), None)


def _has_files(client: MlflowClient, version: ModelVersion) -> bool:
    try:
        files = client.list_artifacts(version.run_id or "", "checkpoint")
        return any(file.path.endswith("config.json") for file in files)
    except (MlflowException, OSError):
        return False


def _log_step(
    client: MlflowClient, experiment: str, parent: str, step: str, status: str, report: Any
) -> None:
    tags = {MLFLOW_PARENT_RUN_ID: parent, "step": step, "status": status}
    child = client.create_run(experiment, tags=tags, run_name=step).info.run_id
    seconds = report["timings_s"].get(step)
    values = {} if seconds is None else {"seconds": seconds}
    measured = report["metrics"].get(EVALUATIONS.get(step, "")) or {}
    _log_values(client, child, {}, {**values, **_numbers(measured), "cached": status == "cached"})
    client.set_terminated(child)


def _log_values(
    client: MlflowClient, run: str, params: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    now = int(time.time() * 1000)
    entries = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in params.items()]
    numbers = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
    tags: list[RunTag] = []
    for start in range(0, max(len(entries), len(numbers)), 100):
        part = slice(start, start + 100)
        client.log_batch(run, numbers[part], entries[part], tags)


def _params(report: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_flat(report["provenance"]["config"]))


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    sections = {key: report.get(key) or {} for key in MEASURED}
    return _numbers({**dict(_flat(sections)), **_measured(report)})


def _measured(report: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_flat({model: values or {} for model, values in report["metrics"].items()}))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _columns(rows: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns; what is nested stands as JSON, since a table's cell holds a value."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [_cell(row.get(name)) for row in rows] for name in names}


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
