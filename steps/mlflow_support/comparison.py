"""What a comparison logs to MLflow: one run with the table, its files, and one metric a cell."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from steps.mlflow_support import tracking
from steps.zenml_support.workspace import result_files

BATCH_SIZE = 900
"""Metrics of one request; MLflow's limit is 1,000."""
_NOT_IN_KEYS = re.compile(r"[^\w.:/ -]", re.ASCII)
"""Characters that MLflow takes in no name of a metric, such as the + of a method with an update."""
LOGGED_PARAMS = ("name", "source", "ratio_of")


def log(name: str, content: Mapping[str, Any], files: Path) -> str:
    """Logs the table `content` and the directory `files` that it is in; returns the run's id."""
    client = tracking.connect()
    experiment = tracking.experiment_id(client)
    run = str(client.create_run(experiment, tags={"kind": "comparison"}, run_name=name).info.run_id)
    try:
        for key in LOGGED_PARAMS:
            client.log_param(run, key, content[key])
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, 0) for key, value in _metrics(content)]
        for start in range(0, len(metrics), BATCH_SIZE):
            client.log_batch(run, metrics[start : start + BATCH_SIZE])
        for file in result_files(files):
            client.log_artifact(run, str(file))
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)
    return run


def _metrics(content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`dense.<metric>`, `<model>.<ratio>.<layout>.<method>.<metric>`, and `..._to_dense`."""
    for name, value in content["dense"].items():
        yield f"dense.{name}", value
    for row in content["rows"]:
        method = _NOT_IN_KEYS.sub("_", row["method"])
        cell = f"{row['ratio']:g}.{row['layout']}.{method}"
        for model in ("pruned", "finetuned"):
            for metric, statistics in (row[model] or {}).items():
                for suffix, field in (("", "mean"), ("_to_dense", "to_dense")):
                    if statistics[field] is not None:
                        yield f"{model}.{cell}.{metric}{suffix}", statistics[field]
