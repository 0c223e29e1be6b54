"""Old MLflow runs, in a real store."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from steps.cleaning.tracking_runs import old_tracking_runs, registered_folders
from steps.mlflow_support import tracking

LATER = time.time() + 3600


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking.connect_to(f"sqlite:///{file}")
    return file


@pytest.fixture
def client(empty_store: Path, tmp_path: Path) -> MlflowClient:
    file = shutil.copy(empty_store, tmp_path)
    return tracking.connect_to(f"sqlite:///{file}")


def log(client: MlflowClient, name: str, **tags: str) -> str:
    """A run with one child run and a file `checkpoint/weights`."""
    experiment = tracking.experiment_id(client)
    run = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    client.log_text(run, "w" * 50, "checkpoint/weights")
    child = client.create_run(experiment, tags={MLFLOW_PARENT_RUN_ID: run}).info.run_id
    for id in (child, run):
        client.set_terminated(id)
    return str(run)


def register(client: MlflowClient, run: str, **tags: str) -> None:
    source = f"{client.get_run(run).info.artifact_uri}/checkpoint"
    client.create_model_version("m", source, run_id=run, tags=tags)


def names(client: MlflowClient, before: float = LATER) -> list[str]:
    return sorted(removal.what for removal in old_tracking_runs(client, before))


def test_runs_that_no_version_needs_go_with_their_files(client: MlflowClient) -> None:
    client.create_registered_model("m")
    kept, named, gone = log(client, "kept"), log(client, "named"), log(client, "gone")
    register(client, kept, compared_with=named)
    removals = old_tracking_runs(client, LATER)
    assert [removal.what for removal in removals] == ["MLflow run gone"]
    (folder,) = removals[0].paths
    for removal in removals:
        removal.remove()
    assert not folder.exists()
    experiment = tracking.experiment_id(client)
    left = {run.info.run_id for run in client.search_runs([experiment], run_view_type=3)}
    assert gone not in left and {kept, named} <= left and len(left) == 4
    assert (next(iter(registered_folders(client))) / "weights").read_text() == "w" * 50


def test_the_newest_run_of_a_registered_configuration_stays(client: MlflowClient) -> None:
    client.create_registered_model("m")
    register(client, log(client, "first", config_hash="c"), config_hash="c")
    for name in ("second", "third"):
        time.sleep(0.002)
        log(client, name, config_hash="c")
    log(client, "other", config_hash="d")
    assert names(client) == ["MLflow run other", "MLflow run second"]


def test_a_run_without_an_end_and_a_recent_one(client: MlflowClient) -> None:
    experiment = tracking.experiment_id(client)
    client.create_run(experiment, run_name="killed")
    assert names(client) == ["MLflow run killed"]
    assert names(client, before=time.time() - 3600) == []
