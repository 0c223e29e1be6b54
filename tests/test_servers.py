"""The same pipeline against servers: MLflow over HTTP on PostgreSQL, artifacts served or on S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

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
LISTEN = """
import json, sys
from pathlib import Path
from pipelines import listen
from pipelines.passes import Passes
passes = Passes(json.loads(sys.argv[1]))
listen.listen(passes, listen.secret_in("SECRET"), Path("home"), "127.0.0.1", 0, ["arriving"])
"""


@dataclass
class Store:
    folder: Path
    mlflow: str
    studies: str

    @property
    def password(self) -> str:
        return self.studies.partition("@")[0].rpartition(":")[2]

    def compress(self, *arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "compress", "-c", "run.yaml", *arguments],
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

    def report(self) -> dict:
        return json.loads((self.folder / "runs" / "small" / "report.json").read_text())

    def check_loads(self, uri: str) -> None:
        """A plain MLflow client gets the files of this run, and stock Transformers loads them."""
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
def said(store: Store) -> str:
    return store.compress("--home", "home")


def test_runs_versions_and_studies_are_kept_by_servers(store: Store, said: str) -> None:
    import optuna
    from mlflow import MlflowClient

    assert f"models:/small-pruned/1 @candidate in {store.mlflow}" in said
    store.check_loads("models:/small-pruned@candidate")
    assert not (store.folder / "home" / "mlflow.db").exists()
    assert not (store.folder / "home" / "studies.db").exists()
    (study,) = optuna.get_all_study_summaries(store.studies)
    assert study.study_name.startswith("adapruner-")
    assert study.n_trials >= 8

    client = MlflowClient(store.mlflow)
    version = client.get_model_version_by_alias("small-pruned", "candidate")
    run = client.get_run(version.run_id)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert "127.0.0.1" in run.data.params["search.storage"]
    seen = [said, json.dumps(run.data.params), json.dumps(store.report())]
    assert not any(store.password in text for text in seen)


def test_clients_may_keep_artifacts_on_s3_themselves(
    store: Store, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from mlflow import MlflowClient

    from adapruner.config import RegistryConfig
    from steps.mlflow_support import runs as mlflow_run

    with servers.s3_server(tmp_path) as s3:
        login = {
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": s3,
        }
        for name, value in login.items():
            monkeypatch.setenv(name, value)
        bucket = boto3.client("s3", endpoint_url=s3)
        bucket.create_bucket(Bucket="models")
        client = MlflowClient(store.mlflow)
        experiment = client.create_experiment("on-s3", artifact_location="s3://models/runs")
        run = client.create_run(experiment).info.run_id
        registry = RegistryConfig(name="on-s3", alias="candidate")
        hashes = store.report()["provenance"]["hashes"]
        tags = {"checkpoint_hash": hashes["checkpoint"], "config_hash": "none", "gate": "none",
                "gate_reasons": ""}  # fmt: skip
        checkpoint = store.folder / "runs" / "small" / "checkpoint"
        registered = mlflow_run.register(client, registry, run, checkpoint, tags)
        again = mlflow_run.register(client, registry, run, checkpoint, tags)
        assert (registered.version, again.version) == ("1", "1")
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
    secret = "a-secret-of-some-length"
    with started(LISTEN, command, cwd=store.folder, environment={"SECRET": secret}) as listener:
        port = listener.event("listening")["port"]
        hook = client.create_webhook(
            "adapruner",
            f"http://127.0.0.1:{port}/",
            [
                WebhookEvent("model_version", "created"),
                WebhookEvent("model_version_alias", "created"),
            ],
            secret=secret,
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
