"""The MLflow server or database in use: which one it is, and whether it responds."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import requests
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from adapruner.databases import check_database, sqlite_file
from adapruner.errors import UserError
from steps.zenml_support.workspace import home, runs_in_containers

EXPERIMENT = "adapruner"
PROBE_SECONDS = 5
CREATION_SECONDS = 120
"""How long another process may take to create MLflow's tables in an SQLite file."""
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SHORT_TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(PROBE_SECONDS),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
"""MLflow's defaults are 2 minutes a request and 7 retries."""
MESSAGE_LENGTH = 200
MISSING = "RESOURCE_DOES_NOT_EXIST"
"""The error code of MLflow for something that the store does not have."""
EXISTS = "RESOURCE_ALREADY_EXISTS"
"""The error code for something that the store has already."""


class TrackingUnavailableError(UserError):
    """The MLflow in use does not respond."""


def connect() -> MlflowClient:
    """A client of the MLflow in use, which has responded.

    It is MLFLOW_TRACKING_URI when set; else the experiment tracker of the active ZenML stack; else,
    for a stack with a local orchestrator, SQLite in the home folder. Raises UserError where the
    stack has none, and TrackingUnavailableError, within seconds, where it does not respond.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return connect_to(uri)
    _use_stack_tracker()
    _check_available(mlflow.get_tracking_uri())
    return MlflowClient()


def connect_to(uri: str) -> MlflowClient:
    """A client of the MLflow at `uri`, which has responded; independent of ZenML's stack.

    Raises TrackingUnavailableError where it does not respond.
    """
    mlflow.set_tracking_uri(uri)
    _check_available(uri)
    return MlflowClient()


def is_available(client: MlflowClient) -> bool:
    """Whether the MLflow of `client` responds now."""
    try:
        _check_available(client.tracking_uri)
    except TrackingUnavailableError:
        return False
    return True


def is_connection_failure(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is a request without a response."""
    unavailable = (TrackingUnavailableError, requests.ConnectionError, requests.Timeout)
    while error is not None:
        if isinstance(error, unavailable):
            return True
        error = error.__cause__ or error.__context__
    return False


def local_uri(home: Path) -> str:
    """The tracking URI of the SQLite store in a home folder."""
    return f"sqlite:///{home / 'mlflow.db'}"


def configured_uri(home: Path) -> str:
    """MLFLOW_TRACKING_URI when set, else the SQLite store in `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_uri(home.absolute())


def redacted(text: str) -> str:
    """`text` without the parts of its URIs that may hold a password: before @, and from ? on."""
    without_login = re.sub(r"://(?!/)\S*@", "://", text)
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", without_login)


def summarize_error(error: BaseException, with_type: bool = False) -> str:
    """One redacted line on an error, with its type's name in front if `with_type`.

    Of a failed request it is the cause, without the history of the request's retries.
    """
    name = type(error).__name__
    line = (str(error).strip().splitlines() or [name])[0]
    if with_type and not line.startswith(name):
        line = f"{name}: {line}"
    if "Max retries exceeded" in line:
        line = line.rpartition(": ")[2].rstrip("')\"")
    return redacted(line)[:MESSAGE_LENGTH]


def experiment_id(client: MlflowClient) -> str:
    """The id of the experiment of all runs, which is created if it does not exist.

    Without a server, MLflow stores artifacts below the working directory. There the experiment gets
    a fixed folder: beside an SQLite database, else in the home folder.
    """
    existing = client.get_experiment_by_name(EXPERIMENT)
    if existing is not None:
        return str(existing.experiment_id)
    with unless_it_exists():
        return _create_experiment(client)
    return experiment_id(client)


@contextmanager
def unless_it_exists() -> Iterator[None]:
    """Another run may have created the same meanwhile, which is no error."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != EXISTS:
            raise


def _create_experiment(client: MlflowClient) -> str:
    scheme = urlsplit(client.tracking_uri).scheme
    if scheme == "sqlite":
        folder = Path(client.tracking_uri.removeprefix("sqlite:///")).parent
    elif scheme.partition("+")[0] in DATABASE_PORTS:
        if runs_in_containers():
            raise UserError(
                f"MLflow at {redacted(client.tracking_uri)} is a database without a server, so "
                "artifacts would be in a folder of one container; use a server, http(s)://HOST, "
                f"or create the experiment '{EXPERIMENT}' with an artifact_location at a URL"
            )
        folder = home()
    else:
        return str(client.create_experiment(EXPERIMENT))
    location = (folder / "mlartifacts").absolute().as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def _use_stack_tracker() -> None:
    """Sets MLflow's tracking URI to the one of the active ZenML stack."""
    from zenml.client import Client
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

    stack = Client().active_stack
    tracker = stack.experiment_tracker
    if isinstance(tracker, MLFlowExperimentTracker):
        tracker.configure_mlflow()
    elif stack.orchestrator.config.is_local:
        mlflow.set_tracking_uri(local_uri(home()))
    else:
        raise UserError(
            f"the active ZenML stack '{stack.name}' has no MLflow tracker: set "
            "MLFLOW_TRACKING_URI, or register an MLflow experiment tracker in the ZenML stack"
        )


def _check_available(uri: str) -> None:
    """Sends one cheap request, with a short timeout and no retry."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    try:
        if scheme == "sqlite":
            _check_folder(Path(uri.removeprefix("sqlite:///")).parent)
        elif scheme in DATABASE_PORTS and parts.hostname:
            address = (parts.hostname, parts.port or DATABASE_PORTS[scheme])
            socket.create_connection(address, PROBE_SECONDS).close()
        with _environment(SHORT_TIMEOUTS), _creation_lock(uri):
            if scheme in ("sqlite", *DATABASE_PORTS):
                check_database(uri, "MLFLOW_TRACKING_URI")
            experiment = MlflowClient().get_experiment_by_name(EXPERIMENT)
    except UserError as error:
        raise TrackingUnavailableError(str(error)) from None
    except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
        raise TrackingUnavailableError(
            f"the MLflow tracking URI {redacted(uri)} does not answer ({summarize_error(error)}); "
            "start that server or set MLFLOW_TRACKING_URI to one that runs"
        ) from error
    if experiment is not None and experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"MLflow's experiment '{EXPERIMENT}' at {redacted(uri)} was deleted; restore it with "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )


def _creation_lock(uri: str) -> AbstractContextManager[object]:
    """The lock of an SQLite file, beside it: two processes can't create MLflow's tables at once."""
    if urlsplit(uri).scheme != "sqlite" or (file := sqlite_file(uri)) is None:
        return nullcontext()
    return FileLock(f"{file}.lock", timeout=CREATION_SECONDS)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OSError(f"{folder} is not a folder that can be written to")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables that are set for a moment."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
