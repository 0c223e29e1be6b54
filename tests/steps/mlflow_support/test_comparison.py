from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from steps.mlflow_support import comparison


def statistics(mean: float | None, to_dense: float | None) -> dict[str, Any]:
    return {"mean": mean, "spread": None, "min": mean, "max": mean, "to_dense": to_dense}


CONTENT: dict[str, Any] = {
    "name": "methods",
    "source": "m",
    "ratio_of": "all",
    "dense": {"t_ppl": 10.0},
    "rows": [
        {
            "method": "adapruner",
            "ratio": 0.5,
            "layout": "uniform",
            "pruned": {"t_ppl": statistics(30.0, 3.0)},
            "finetuned": {"t_ppl": statistics(20.0, 2.0)},
        },
        {
            "method": "flap+update",
            "ratio": 0.5,
            "layout": "uniform",
            "pruned": {"t_ppl": statistics(40.0, 4.0)},
            "finetuned": None,
        },
        {
            "method": "magnitude",
            "ratio": 0.5,
            "layout": "uniform",
            "pruned": {"t_ppl": statistics(None, None)},
            "finetuned": None,
        },
    ],
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def test_a_comparison_is_one_run_with_a_metric_for_each_finite_cell(
    client: MlflowClient, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name in ("comparison.json", "comparison.md", "timing.json"):
        (files / name).write_text("{}")
    run = client.get_run(comparison.log("run-1", CONTENT, files))
    assert run.data.params == {"name": "methods", "source": "m", "ratio_of": "all"}
    assert run.data.metrics == {
        "dense.t_ppl": 10.0,
        "pruned.0.5.uniform.adapruner.t_ppl": 30.0,
        "pruned.0.5.uniform.adapruner.t_ppl_to_dense": 3.0,
        "pruned.0.5.uniform.flap_update.t_ppl": 40.0,
        "pruned.0.5.uniform.flap_update.t_ppl_to_dense": 4.0,
        "finetuned.0.5.uniform.adapruner.t_ppl": 20.0,
        "finetuned.0.5.uniform.adapruner.t_ppl_to_dense": 2.0,
    }
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged == {"comparison.json", "comparison.md"}


def test_a_comparison_that_can_not_be_logged_completely_is_marked_as_failed(
    client: MlflowClient, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        comparison.log("run-1", CONTENT, tmp_path / "none")
    experiment = client.get_experiment_by_name("adapruner")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
