from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from steps.mlflow_support import runs
from tests.steps.mlflow_support.reports import REPORT, write_stage


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


@pytest.fixture(scope="module")
def run_id(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    report = write_stage(tmp_path_factory.mktemp("stages") / "report")
    statuses = {"search": "completed", "evaluate_dense": "cached"}
    return runs.log_run(client, "run-1", {"config_hash": "c0"}, report, statuses)


def test_a_run_has_all_settings_as_parameters(client: MlflowClient, run_id: str) -> None:
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert run.data.tags["config_hash"] == "c0"
    assert run.data.params["pruning.ratio"] == "0.2"
    assert len(run.data.params["note"]) == runs.PARAM_LENGTH


def test_numbers_of_the_report_are_metrics_under_their_dotted_names(
    client: MlflowClient, run_id: str
) -> None:
    metrics = client.get_run(run_id).data.metrics
    assert metrics["pruned.t_ppl"] == 12.0
    assert metrics["params.pruned"] == 80
    assert (metrics["ratio.requested"], metrics["ratio.achieved"]) == (0.2, 0.21)
    assert metrics["retention.pruned.mean.retention"] == 0.9
    assert metrics["timings_s.search"] == 1.5
    assert not any(name.startswith("finetuned") for name in metrics)


def test_the_files_of_the_report_are_artifacts_and_trials_are_a_table(
    client: MlflowClient, run_id: str
) -> None:
    logged = {file.path for file in client.list_artifacts(run_id)}
    assert logged == {"plan.json", "provenance.json", "report.json", "trials.json"}
    table = json.loads(Path(client.download_artifacts(run_id, "trials.json")).read_text())
    values = ["values.kl", "values.margin", "held_out.kl", "held_out.margin"]
    assert table["columns"] == ["number", "name", "params", *values, "state"]
    assert len(table["data"]) == len(REPORT["search"]["trials"])


def test_a_run_has_a_child_run_for_each_step(client: MlflowClient, run_id: str) -> None:
    experiment = client.get_run(run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
    assert {child.info.run_name: child.data.metrics for child in children} == {
        "search": {"seconds": 1.5, "cached": 0.0},
        "evaluate_dense": {"seconds": 0.5, "cached": 1.0, "t_ppl": 10.0},
    }


def test_a_run_that_can_not_be_logged_completely_is_marked_as_failed(
    client: MlflowClient, tmp_path: Path
) -> None:
    report = write_stage(tmp_path / "report")
    (report / "report.json").write_text(json.dumps({**REPORT, "timings_s": {"search": "soon"}}))
    (report / "gone.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Exception, match="gone"):
        runs.log_run(client, "broken", {}, report, {})
    experiment = client.get_experiment_by_name("adapruner")
    (run,) = client.search_runs([experiment.experiment_id], "tags.mlflow.runName = 'broken'")
    assert run.info.status == "FAILED"
