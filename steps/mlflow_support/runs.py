"""What a compression logs to MLflow: one parent run with a child run for each step."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from adapruner.files import flatten, read_json
from steps.mlflow_support import tracking
from steps.zenml_support.workspace import result_files

PARAM_LENGTH = 6000
"""MLflow's limit on the length of a parameter's value."""
BATCH_SIZE = 100
"""MLflow's limit on the parameters of one request."""
METRIC_SECTIONS = (
    "params",
    "ratio",
    "weight_bytes",
    "speed",
    "cost",
    "behaviour",
    "retention",
    "timings_s",
)
"""Sections of the report whose numbers are metrics of the run."""
EVALUATIONS = {
    "evaluate_dense": "dense",
    "evaluate_pruned": "pruned",
    "evaluate_finetuned": "finetuned",
}
"""Evaluation step -> model of the report's metrics."""


def log_run(
    client: MlflowClient,
    name: str,
    tags: Mapping[str, str],
    report: Path,
    statuses: Mapping[str, str],
) -> str:
    """Logs the directory of the report stage as one parent run and returns the run's id.

    `statuses` has the status (completed or cached) of each earlier step.
    """
    content = read_json(report / "report.json")
    experiment = tracking.experiment_id(client)
    run = str(client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)
    try:
        _log_values(client, run, _params(content), _metrics(content))
        for path in result_files(report):
            client.log_artifact(run, str(path))
        client.log_dict(run, content["provenance"], "provenance.json")
        if trials := content["search"]["trials"]:
            client.log_table(run, _columns([*map(_trial_row, trials)]), "trials.json")
        for step, status in statuses.items():
            child_tags = {MLFLOW_PARENT_RUN_ID: run, "step": step, "status": status}
            child = client.create_run(experiment, tags=child_tags, run_name=step).info.run_id
            _log_values(client, child, {}, _step_metrics(content, step, status))
            client.set_terminated(child)
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)
    return run


def log_exports(client: MlflowClient, run: str, exports: Path) -> None:
    """Logs the exports of a run's checkpoint beside it, in the folder `exports`."""
    for path in result_files(exports):
        if path.is_dir():
            client.log_artifacts(run, str(path), f"exports/{path.name}")
        else:
            client.log_artifact(run, str(path), "exports")


def evaluation_metrics(report: Mapping[str, Any]) -> dict[str, Any]:
    """`<model>.<metric>` -> value, for all models that were evaluated."""
    return dict(flatten({model: values or {} for model, values in report["metrics"].items()}))


def _params(report: Mapping[str, Any]) -> dict[str, Any]:
    return dict(flatten(report["provenance"]["config"]))


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    sections = {key: report.get(key) or {} for key in METRIC_SECTIONS}
    return _numbers({**dict(flatten(sections)), **evaluation_metrics(report)})


def _step_metrics(report: Mapping[str, Any], step: str, status: str) -> dict[str, float]:
    seconds = report["timings_s"].get(step)
    evaluated = report["metrics"].get(EVALUATIONS.get(step, "")) or {}
    return _numbers({"seconds": seconds, **evaluated}) | {"cached": float(status == "cached")}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _log_values(
    client: MlflowClient, run: str, params: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    now = int(time.time() * 1000)
    entries = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in params.items()]
    numbers = [Metric(key, value, now, 0) for key, value in metrics.items()]
    no_tags: list[RunTag] = []
    for start in range(0, max(len(entries), len(numbers)), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        client.log_batch(run, numbers[batch], entries[batch], no_tags)


def _trial_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A trial with a column for each of its values, so that they are numbers."""
    values = {name: trial[name] or {} for name in ("values", "held_out")}
    return {name: value for name, value in trial.items() if name not in values} | dict(
        flatten(values)
    )


def _columns(rows: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns. A cell of an MLflow table is a plain value, so nested values are JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [_cell(row.get(name)) for row in rows] for name in names}


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
