"""The MLflow that a run writes to and reads registered models from."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from adapruner.errors import UserError
from adapruner.hashing import hash_json
from steps.zenml_support.workspace import home

EXPERIMENT = "adapruner"
PROBE_SECONDS = 5
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
WANTED = "set MLFLOW_TRACKING_URI, or register an MLflow experiment tracker in the ZenML stack"


class UnreachableError(UserError):
    """The MLflow that is to be used does not answer."""


def connect() -> MlflowClient:
    """A client of the MLflow to use, once it has answered.

    It is MLFLOW_TRACKING_URI when set; else the experiment tracker of the active ZenML stack; else,
    for a stack whose orchestrator runs on this machine, SQLite in the home folder. Raises UserError
    within seconds where there is none or it does not answer.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return connect_to(uri)
    _use_stack()
    _check_answers(mlflow.get_tracking_uri())
    return MlflowClient()


def connect_to(uri: str) -> MlflowClient:
    """A client of the MLflow at `uri`, once it has answered; no ZenML is asked."""
    mlflow.set_tracking_uri(uri)
    _check_answers(uri)
    return MlflowClient()


def answers(client: MlflowClient) -> bool:
    """Whether the MLflow of `client` answers now."""
    try:
        _check_answers(client.tracking_uri)
    except UnreachableError:
        return False
    return True


def connection_failed(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is a request that MLflow did not answer."""
    while error is not None:
        if isinstance(error, UnreachableError | requests.ConnectionError | requests.Timeout):
            return True
        error = error.__cause__ or error.__context__
    return False


def local_uri(home: Path) -> str:
    """The tracking URI of the SQLite store in a home folder."""
    return f"sqlite:///{home / 'mlflow.db'}"


def configured_uri(home: Path) -> str:
    """The MLflow of the commands, which bring a ZenML stack of their own: set, or in `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_uri(home.absolute())


def redacted(text: str) -> str:
    """`text` without the parts of its URIs that may hold a password: before @, and from ? on."""
    named = re.sub(r"://(?!/)\S*@", "://", text)
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", named)


def experiment_id(client: MlflowClient) -> str:
    """The experiment of all compressions, made if absent.

    A store without a server of its own would put artifacts below the working directory; there the
    place is given: beside the database, or in the home folder.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    uri = urlsplit(client.tracking_uri)
    database = (
        Path(client.tracking_uri.removeprefix("sqlite:///")) if uri.scheme == "sqlite" else None
    )
    folder = (database.parent if database else home()) / "mlartifacts"
    serverless = uri.scheme == "sqlite" or uri.scheme.partition("+")[0] in DATABASE_PORTS
    location = folder.absolute().as_uri() if serverless else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def model_version(name: str, version: str | None, alias: str | None) -> ModelVersion:
    """A registered version by number or alias. Raises UserError where there is none."""
    client = connect()
    try:
        if alias is not None:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        wanted = f"{name}@{alias}" if alias else f"{name}/{version}"
        raise UserError(
            f"models:/{wanted} is not in the MLflow registry at "
            f"{redacted(mlflow.get_registry_uri())}: {first_line(error)}"
        ) from error


def download(version: ModelVersion, into: Path) -> Path:
    """Copy the files of a registered version into the directory `into`; where they are then."""
    uri = MlflowClient().get_model_version_download_uri(version.name, version.version)
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"models:/{version.name}/{version.version}: its files at {redacted(uri)} can't be "
            f"fetched: {first_line(error)}"
        ) from error


def fingerprint(version: ModelVersion) -> str:
    """sha256 over the names and sizes of a registered version's files, as 64 hex digits.

    Of files on this machine the modification times count as well. It is cheap: nothing is read, so
    files elsewhere that were altered and kept their sizes are not noticed. Raises UserError where
    the files can't be listed.
    """
    uri = MlflowClient().get_model_version_download_uri(version.name, version.version)
    parts = urlsplit(uri)
    try:
        if parts.scheme in ("", "file"):
            files: dict[str, Any] = _files_here(Path(unquote(parts.path)))
        else:
            files = dict(_files_there(uri))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"models:/{version.name}/{version.version}: its files at {redacted(uri)} can't be "
            f"listed: {first_line(error)}"
        ) from error
    return hash_json([uri, files])


def _files_here(directory: Path) -> dict[str, list[int]]:
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    stats = ((path.relative_to(directory).as_posix(), path.stat()) for path in found)
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats}


def _files_there(uri: str) -> Iterator[tuple[str, int | None]]:
    repository = get_artifact_repository(uri)
    folders: list[str | None] = [None]
    while folders:
        for info in repository.list_artifacts(folders.pop()):
            if info.is_dir:
                folders.append(info.path)
            else:
                yield info.path, info.file_size


def _use_stack() -> None:
    """Point MLflow at the tracker of the active ZenML stack, or at SQLite in the home folder."""
    from zenml.client import Client
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

    stack = Client().active_stack
    tracker = stack.experiment_tracker
    if isinstance(tracker, MLFlowExperimentTracker):
        tracker.configure_mlflow()
    elif stack.orchestrator.config.is_local:
        mlflow.set_tracking_uri(local_uri(home()))
    else:
        raise UserError(f"the active ZenML stack '{stack.name}' has no MLflow tracker: {WANTED}")


def _check_answers(uri: str) -> None:
    """One cheap question, with a short wait and no second try: a dead store fails at the start."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    try:
        if scheme == "sqlite":
            _check_folder(uri)
        elif scheme in DATABASE_PORTS and parts.hostname:
            address = (parts.hostname, parts.port or DATABASE_PORTS[scheme])
            socket.create_connection(address, PROBE_SECONDS).close()
        with _impatient():
            MlflowClient().get_experiment_by_name(EXPERIMENT)
    except (MlflowException, OSError, ValueError) as error:
        raise UnreachableError(
            f"the MLflow tracking URI {redacted(uri)} does not answer ({first_line(error)}); "
            "start that server or set MLFLOW_TRACKING_URI to one that runs"
        ) from error


def _check_folder(uri: str) -> None:
    folder = Path(uri.removeprefix("sqlite:///")).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OSError(f"{folder} is not a folder that can be written to")


@contextmanager
def _impatient() -> Iterator[None]:
    """MLflow's own patience is 2 minutes a request and 7 tries."""
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(PROBE_SECONDS),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def first_line(error: BaseException, named: bool = False) -> str:
    """What went wrong; of a failed connection, its cause and not the request's whole history."""
    name = type(error).__name__
    line = (str(error).strip().splitlines() or [name])[0]
    if named and not line.startswith(name):
        line = f"{name}: {line}"
    if "Max retries exceeded" in line:
        line = line.rpartition(": ")[2].rstrip("')\"")
    return redacted(line)[:200]
