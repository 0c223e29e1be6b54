from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from adapruner.config import RegistryConfig
from steps.mlflow_support import runs as mlflow_run, tracking

REPORT: dict[str, Any] = {
    "params": {"dense": 100, "pruned": 80, "ratio_requested": 0.2, "ratio_achieved": 0.21},
    "metrics": {"dense": {"t_ppl": 10.0}, "pruned": {"t_ppl": 12.0}, "finetuned": None},
    "retention": {"pruned": {"mean": {"retention": 0.9}}},
    "speed": None,
    "timings_s": {"search": 1.5, "evaluate_dense": 0.5},
    "search": {
        "trials": [
            {"number": 0, "name": "whole_pool", "value": 12.0, "params": {"alpha1": 1}},
            {"number": 1, "name": "trial", "value": None, "state": "FAIL"},
        ]
    },
    "provenance": {
        "config": {"name": "x", "pruning": {"ratio": 0.2}, "note": "n" * 7000},
        "config_hash": "c0",
        "settings_hash": "s0",
        "source": {"given": "models:/a@x", "revision": "a/1"},
        "hashes": {"source": "s0", "checkpoint": "k0"},
    },
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


@pytest.fixture
def stage(tmp_path: Path) -> tuple[Path, Path]:
    report, checkpoint = tmp_path / "report", tmp_path / "checkpoint"
    report.mkdir()
    checkpoint.mkdir()
    (report / "report.json").write_text(json.dumps(REPORT))
    (report / "plan.json").write_text("{}")
    (report / "timing.json").write_text("{}")
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "timing.json").write_text("{}")
    return report, checkpoint


def test_a_run_has_a_child_a_step_and_the_trials_as_a_table(
    client: MlflowClient, stage: tuple[Path, Path]
) -> None:
    steps = {"search": "completed", "evaluate_dense": "cached"}
    run_id = mlflow_run.log_run(client, "run-1", {"config_hash": "c0"}, stage[0], steps)
    run = client.get_run(run_id)
    assert run.info.run_name == "run-1"
    assert run.data.tags["config_hash"] == "c0"
    assert run.data.params["pruning.ratio"] == "0.2"
    assert len(run.data.params["note"]) == mlflow_run.PARAM_LENGTH
    assert run.data.metrics["pruned.t_ppl"] == 12.0
    assert run.data.metrics["params.pruned"] == 80
    assert {f.path for f in client.list_artifacts(run_id)} == {
        "plan.json",
        "provenance.json",
        "report.json",
        "trials.json",
    }
    table = json.loads(Path(client.download_artifacts(run_id, "trials.json")).read_text())
    assert table["columns"] == ["number", "name", "value", "params", "state"]
    assert len(table["data"]) == 2

    children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    by_name = {child.info.run_name: child.data.metrics for child in children}
    assert by_name == {
        "search": {"seconds": 1.5, "cached": 0.0},
        "evaluate_dense": {"seconds": 0.5, "cached": 1.0, "t_ppl": 10.0},
    }


def test_the_same_checkpoint_is_registered_once(
    client: MlflowClient, stage: tuple[Path, Path]
) -> None:
    tags = mlflow_run.version_tags(REPORT)
    assert tags["dense.t_ppl"] == "10.0"
    assert tags["mean_retention"] == "0.9"
    assert (tags["source_name"], tags["source_version"]) == ("a", "1")
    registry = RegistryConfig(name="once", alias="candidate")

    def registered(tags: dict[str, str]) -> str:
        run = mlflow_run.log_run(client, "run", {}, stage[0], {})
        version = mlflow_run.register(client, registry, run, stage[1], tags)
        assert client.get_model_version_by_alias("once", "candidate").version == version.version
        return str(version.version)

    assert registered(tags) == "1"
    assert registered(tags) == "1"
    assert registered({**tags, "checkpoint_hash": "k1"}) == "2"
    assert registered(tags) == "1"

    first = client.get_model_version("once", "1")
    files = [f.path for f in client.list_artifacts(first.run_id, "checkpoint")]
    assert files == ["checkpoint/config.json"]
    Path(urlsplit(first.source).path, "config.json").unlink()
    assert registered(tags) == "3", "a version whose files are gone is of no use"


def test_artifacts_lie_beside_the_database(client: MlflowClient) -> None:
    experiment = client.get_experiment(tracking.experiment_id(client))
    database = Path(client.tracking_uri.removeprefix("sqlite:///"))
    assert experiment.artifact_location == (database.parent / "mlartifacts").as_uri()


def test_what_is_said_of_a_version_holds_no_password() -> None:
    client = MlflowClient("http://user:SECRET@127.0.0.1:9")
    version = ModelVersion("m", "3", creation_timestamp=0)
    assert mlflow_run.described(client, RegistryConfig(name="m"), "r0", version) == {
        "name": "m",
        "version": "3",
        "alias": "candidate",
        "run_id": "r0",
        "tracking_uri": "http://127.0.0.1:9",
    }
