"""The pipeline on servers: MLflow over HTTP on PostgreSQL, artifacts served by it or on S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapruner.files import read_json
from tests import servers
from tests.pipelines import small
from tests.pipelines.services import started

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        servers.postgres_programs() is None,
        reason="PostgreSQL's programs are not installed (Debian: postgresql)",
    ),
]
S3_LOGIN = {
    "AWS_ACCESS_KEY_ID": "anyone",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_DEFAULT_REGION": "us-east-1",
}
WEBHOOK_SECRET = "a-secret-of-some-length"
LISTEN = """
import json, sys
from pathlib import Path
from pipelines.schedules.passes import Passes
from pipelines.service import listen
passes = Passes(json.loads(sys.argv[1]))
listen.listen(passes, listen.secret_in("SECRET"), Path("home"), "127.0.0.1", 0, ["arriving"])
"""


@dataclass
class Store:
    """A folder with a small checkpoint and a run's file; the URLs of MLflow and of the studies."""

    folder: Path
    mlflow: str
    studies: str

    @property
    def password(self) -> str:
        return self.studies.partition("@")[0].rpartition(":")[2]

    @property
    def results(self) -> Path:
        return self.folder / "runs" / "small"

    def compress(self) -> str:
        """The output of a run."""
        command = ["compress", "-c", "run.yaml", "--home", "home"]
        ended = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *command],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "MLFLOW_TRACKING_URI": self.mlflow,
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    def report(self) -> dict[str, Any]:
        content: dict[str, Any] = read_json(self.results / "report.json")
        return content

    def check_loads(self, uri: str) -> None:
        """An MLflow client downloads the files of this run, and stock Transformers loads them."""
        import mlflow
        import torch
        from transformers import AutoModelForCausalLM

        from adapruner.hashing import hash_directory

        path = self.folder / uri.translate(str.maketrans(":/@", "---"))
        path.mkdir()
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(self.mlflow)
        try:
            mlflow.artifacts.download_artifacts(uri, dst_path=str(path))
        finally:
            mlflow.set_tracking_uri(before)
        assert hash_directory(path) == self.report()["provenance"]["hashes"]["checkpoint"]
        model = AutoModelForCausalLM.from_pretrained(path)
        assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("servers")
    small.write_checkpoint(folder / "model", seed=0)
    small.write_text(folder / "text.txt", seed=0)
    with servers.postgres("mlflow", "studies") as databases:
        settings = servers.webhook_settings()
        with servers.mlflow_server(folder, f"{databases}/mlflow", settings) as url:
            values = small.config(folder)
            values["parameters"]["config"]["search"]["storage"] = f"{databases}/studies"
            (folder / "run.yaml").write_text(yaml.safe_dump(values))
            yield Store(folder, url, f"{databases}/studies")


@pytest.fixture(scope="module")
def output(store: Store) -> str:
    """The output of the run whose results the tests look at."""
    return store.compress()


def test_runs_model_versions_and_studies_are_kept_by_servers(store: Store, output: str) -> None:
    import optuna
    from mlflow import MlflowClient

    assert f"models:/small-pruned/1 @candidate in {store.mlflow}" in output
    store.check_loads("models:/small-pruned@candidate")
    assert not (store.folder / "home" / "mlflow.db").exists()
    assert not (store.folder / "home" / "studies.db").exists()
    (study,) = optuna.get_all_study_summaries(store.studies)
    assert study.n_trials >= 8

    client = MlflowClient(store.mlflow)
    version = client.get_model_version_by_alias("small-pruned", "candidate")
    run = client.get_run(version.run_id)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert "127.0.0.1" in run.data.params["search.storage"]

    assert "Nothing has changed" in store.compress()


def test_the_password_of_the_study_is_published_nowhere(store: Store, output: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store.mlflow)
    version = client.get_model_version_by_alias("small-pruned", "candidate")
    params = client.get_run(version.run_id).data.params
    published = [output, json.dumps(params), json.dumps(dict(version.tags))]
    published += [path.read_text() for path in store.results.glob("*.json")]
    assert not any(store.password in text for text in published)


def test_clients_may_keep_artifacts_on_s3_themselves(
    store: Store, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from mlflow import MlflowClient

    from adapruner.config import RegistryConfig
    from steps.mlflow_support import model_versions

    with servers.s3_server(tmp_path) as s3:
        for name, value in {**S3_LOGIN, "MLFLOW_S3_ENDPOINT_URL": s3}.items():
            monkeypatch.setenv(name, value)
        bucket = boto3.client("s3", endpoint_url=s3)
        bucket.create_bucket(Bucket="models")
        client = MlflowClient(store.mlflow)
        experiment = client.create_experiment("on-s3", artifact_location="s3://models/runs")
        run = client.create_run(experiment).info.run_id
        registry = RegistryConfig(name="on-s3", alias="candidate")
        tags = model_versions.version_tags(store.report())
        checkpoint = store.results / "checkpoint"
        numbers = [
            model_versions.register(client, registry, run, checkpoint, tags).version
            for _ in range(2)
        ]
        assert numbers == ["1", "1"]
        keys = [row["Key"] for row in bucket.list_objects_v2(Bucket="models")["Contents"]]
        assert any(key.endswith("checkpoint/model.safetensors") for key in keys)
        store.check_loads("models:/on-s3@candidate")


def test_a_version_that_arrives_in_the_registry_starts_a_pass(store: Store) -> None:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import WebhookEvent

    client = MlflowClient(store.mlflow)
    client.create_registered_model("arriving")
    client.create_registered_model("another")
    command = json.dumps([sys.executable, "-c", 'print(\'{"event": "worked"}\')'])
    environment = {"SECRET": WEBHOOK_SECRET}
    with started(LISTEN, command, cwd=store.folder, environment=environment) as listener:
        port = listener.event("listening")["port"]
        hook = client.create_webhook(
            "adapruner",
            f"http://127.0.0.1:{port}/",
            [
                WebhookEvent("model_version", "created"),
                WebhookEvent("model_version_alias", "created"),
            ],
            secret=WEBHOOK_SECRET,
        )
        assert client.test_webhook(hook.webhook_id).response_status == 200
        assert listener.event("ignored")["model"] == "example_model"
        client.create_model_version("another", "s3://models/none")
        assert listener.event("ignored")["model"] == "another"
        client.create_model_version("arriving", "s3://models/none")
        assert listener.event("accepted")["webhook"] == "model_version.created"
        listener.event("worked")
        client.set_registered_model_alias("arriving", "champion", "1")
        assert listener.event("accepted")["webhook"] == "model_version_alias.created"
        listener.event("worked")
        client.update_webhook(hook.webhook_id, secret="another-secret-of-length")
        assert client.test_webhook(hook.webhook_id).response_status == 401
        assert listener.event("refused")["status"] == 401
        assert listener.end(signal.SIGTERM) == 0
    client.delete_webhook(hook.webhook_id)
