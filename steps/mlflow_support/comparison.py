"""A comparison as MLflow knows it: one run with the table, its files, and a metric a cell."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from steps.mlflow_support import tracking
from steps.zenml_support.workspace import TIMING

AT_ONCE = 900
"""Metrics of one request; MLflow takes 1,000."""


def log(name: str, content: Mapping[str, Any], files: Path) -> str:
    """Log comparison.json's `content` and the directory it is in; the run's id."""
    client = tracking.connect()
    experiment = tracking.experiment_id(client)
    run = str(client.create_run(experiment, tags={"kind": "comparison"}, run_name=name).info.run_id)
    try:
        for key in ("name", "source", "ratio_of"):
            client.log_param(run, key, content[key])
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, 0) for key, value in _metrics(content)]
        for start in range(0, len(metrics), AT_ONCE):
            client.log_batch(run, metrics[start : start + AT_ONCE])
        for file in sorted(path for path in files.iterdir() if path.name != TIMING):
            client.log_artifact(run, str(file))
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)
    return run


def _metrics(content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`<model>.<ratio>.<layout>.<method>.<metric>`, the mean, and `_to_dense`."""
    for name, value in content["dense"].items():
        yield f"dense.{name}", value
    for row in content["rows"]:
        for model in ("pruned", "finetuned"):
            for metric, stat in (row[model] or {}).items():
                key = f"{model}.{row['ratio']:g}.{row['layout']}.{row['method']}.{metric}"
                for suffix, field in (("", "mean"), ("_to_dense", "to_dense")):
                    if stat[field] is not None:
                        yield key + suffix, stat[field]
