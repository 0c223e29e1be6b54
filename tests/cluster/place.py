"""A cluster in miniature: servers of ZenML, MLflow, PostgreSQL, S3 and Kubernetes, with pods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.servers import (
    free_port,
    has_mariadb,
    mariadb,
    mlflow_server,
    postgres,
    running,
    web,
)

HERE = Path(__file__).parent
IMAGE_FOLDER = os.environ.get("ADAPRUNER_VERIFY_IMAGE")
"""A folder with the project and an environment `.venv` with the extras of the cluster."""
IMAGE = "registry.example.org/adapruner:0.1.0"
CONTEXT, NAMESPACE, CLAIM, SECRET = "stand-in", "adapruner", "data", "adapruner"
KUBERNETES, KUBEFLOW = "kubernetes", "kubeflow"
"""The orchestrators, and the stacks that have them."""
IMAGE_SETTINGS = {"docker": {"parent_image": IMAGE, "skip_build": True}}
REQUESTS = "s3-requests.jsonl"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}

REGISTER = """
import json, sys
import boto3
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
values = json.loads(sys.argv[1])
for bucket in ("zenml", "texts"):
    boto3.client("s3").create_bucket(Bucket=bucket)
client, parts = Client(), {}
client.create_secret(values["secret"], values["keys"])
for kind, flavor, settings in values["components"]:
    kind = Kind(kind)
    client.create_stack_component("cluster", flavor, kind, configuration=settings)
    parts[kind] = "cluster"
for name, settings in values["orchestrators"].items():
    client.create_stack_component(name, name, Kind.ORCHESTRATOR, configuration=settings)
    client.create_stack(name, parts | {Kind.ORCHESTRATOR: name})
"""
"""Registers a stack for each orchestrator, as the commands in docs/cluster.md do."""


@dataclass
class Place:
    """A folder with the submitter's files, and the addresses of the servers."""

    folder: Path
    image: Path
    environment: dict[str, str]
    database: str
    kubernetes: str

    @property
    def pods(self) -> Path:
        return self.folder / "pods"

    @property
    def volume(self) -> Path:
        """What pods see at the mount of the claim."""
        return self.pods / "claims" / CLAIM

    @contextmanager
    def adapruner(
        self, command: str, stack: str, *arguments: str
    ) -> Iterator[subprocess.Popen[str]]:
        """`adapruner COMMAND --stack STACK` on the file STACK-COMMAND.yaml, ended with the body."""
        command_line = [command, "-c", f"{stack}-{command}.yaml", "--stack", stack, *arguments]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *command_line],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def weights(self) -> int:
        """Bytes of the model's weights."""
        return (self.volume / "model" / "model.safetensors").stat().st_size

    def upload(self, file: Path, place: str) -> str:
        """The URL of a copy in S3, at BUCKET/KEY."""
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id="key", aws_secret_access_key="secret",
        )  # fmt: skip
        client.upload_file(str(file), *place.split("/", 1))
        return f"s3://{place}"

    def requests(self) -> list[dict[str, Any]]:
        """The requests to the store so far, see `s3_server`."""
        return [json.loads(line) for line in (self.folder / REQUESTS).read_text().splitlines()]

    def ended_pods(self) -> list[dict[str, Any]]:
        file = self.pods / "pods.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def kubernetes_settings() -> dict[str, Any]:
    """The content of a run's file beside `parameters`, as in configs/cluster.yaml."""
    pod = {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
        "volume_mounts": [{"name": "data", "mountPath": "/data"}],
        "env_from": [{"secretRef": {"name": SECRET}}],
    }
    pods = {"pod_settings": pod, "orchestrator_pod_settings": pod}
    return {"settings": {**IMAGE_SETTINGS, "orchestrator.kubernetes": pods}}


def kubeflow_settings() -> dict[str, Any]:
    """The same for Kubeflow, which mounts nothing: keys are in a secret of ZenML."""
    return {"settings": IMAGE_SETTINGS, "secrets": [SECRET]}


@contextmanager
def cluster(folder: Path, image: Path, base: str) -> Iterator[Place]:
    """The servers and the registered stacks. ZenML's database is MariaDB where that is installed,
    else SQLite. `image` is a folder with the project and its `.venv`,
    which was made from the Python installation `base`."""
    pods = folder / "pods"
    (pods / "run").mkdir(parents=True)
    with ExitStack() as servers:
        s3 = servers.enter_context(_s3_server(folder))
        aws = {**KEYS, "AWS_ENDPOINT_URL": s3, "AWS_DEFAULT_REGION": "us-east-1"}
        database = servers.enter_context(postgres("mlflow", "studies"))
        mlflow = servers.enter_context(mlflow_server(folder, f"{database}/mlflow", aws))
        store = f"sqlite:///{folder / 'zenml.db'}"
        if has_mariadb():
            url = servers.enter_context(mariadb("zenml"))
            store = f"{url.replace('+pymysql', '')}/zenml"
        zenml = servers.enter_context(_zenml_server(folder, store))
        health = f"api/v1/namespaces/{NAMESPACE}/pods"
        kubernetes = servers.enter_context(_api(KUBERNETES, pods, image, base, health))
        kubeflow = servers.enter_context(_api(KUBEFLOW, pods, image, base, "apis/v2beta1/healthz"))
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "MLFLOW_"))},
            **aws,
            "PYTHONPATH": str(image),
            "ZENML_CUSTOM_SOURCE_ROOT": str(image),
            "OMP_NUM_THREADS": "1",
            "HOME": str(folder),
            "KUBECONFIG": str(pods / "run" / "kubeconfig"),
            "ZENML_CONFIG_PATH": str(folder / "submitter"),
            "ZENML_STORE_URL": zenml,
            "ZENML_STORE_USERNAME": "default",
            "ZENML_STORE_PASSWORD": "",
            "ZENML_ANALYTICS_OPT_IN": "false",
        }
        Path(environment["KUBECONFIG"]).write_text(yaml.safe_dump(kubeconfig(kubernetes)))
        _register(environment, s3, mlflow, aws, kubeflow)
        _create(kubernetes, "secrets", {"metadata": {"name": SECRET}, "stringData": aws})
        yield Place(folder, image, environment, database, kubernetes)


def kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": {"server": url}}],
        "users": [{"name": CONTEXT, "user": {"token": "none"}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
    }


@contextmanager
def _s3_server(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, str(HERE / "s3_server.py"), str(port), str(folder / REQUESTS)]
    url = f"http://127.0.0.1:{port}"
    with running(command, folder / "s3.log", web(url)):
        yield url


@contextmanager
def _zenml_server(folder: Path, store: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app"]
    settings = {
        "ZENML_CONFIG_PATH": str(folder / "zenml-server"),
        "ZENML_STORE_URL": store,
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_JWT_SECRET_KEY": os.urandom(32).hex(),
        "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
        "ZENML_ANALYTICS_OPT_IN": "false",
    }
    url = f"http://127.0.0.1:{port}"
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    with running([*command, *arguments], folder / "zenml.log", web(f"{url}/health"), settings):
        yield url


@contextmanager
def _api(name: str, pods: Path, image: Path, base: str, health: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", f"tests.cluster.{name}_api", str(port), str(pods)]
    url = f"http://127.0.0.1:{port}"
    answers, paths = web(f"{url}/{health}"), {"PYTHONPATH": str(HERE.parents[1])}
    with running([*command, str(image), base], pods / f"{name}.log", answers, paths):
        yield url


def _register(
    environment: dict[str, str], s3: str, mlflow: str, keys: dict[str, str], kubeflow: str
) -> None:
    components = [
        ("artifact_store", "s3", {
            "path": "s3://zenml/artifacts", "key": KEYS["AWS_ACCESS_KEY_ID"],
            "secret": KEYS["AWS_SECRET_ACCESS_KEY"],
            "client_kwargs": {"endpoint_url": s3, "region_name": "us-east-1"}}),
        ("experiment_tracker", "mlflow", {"tracking_uri": mlflow, "tracking_token": "unused"}),
        ("container_registry", "default", {"uri": "registry.example.org"}),
        ("image_builder", "local", {}),
    ]  # fmt: skip
    orchestrators = {
        KUBERNETES: {
            "kubernetes_context": CONTEXT, "kubernetes_namespace": NAMESPACE,
            "service_account_name": "adapruner"},
        KUBEFLOW: {"kubeflow_hostname": kubeflow},
    }  # fmt: skip
    values = json.dumps(
        {
            "components": components,
            "orchestrators": orchestrators,
            "secret": SECRET,
            "keys": keys,
        }
    )
    done = subprocess.run(
        [sys.executable, "-c", REGISTER, values], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _create(url: str, kind: str, content: dict[str, Any]) -> None:
    import requests

    answer = requests.post(f"{url}/api/v1/namespaces/{NAMESPACE}/{kind}", json=content, timeout=10)
    assert answer.status_code == 201, answer.text


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.5)
