from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from adapruner.errors import UserError
from steps.mlflow_support import tracking
from steps.mlflow_support.tracking import TrackingUnavailableError


@pytest.fixture(autouse=True)
def _restored_uri() -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_store_that_does_not_respond_fails_at_once_without_showing_its_password(
    scheme: str, free_port: int
) -> None:
    started = time.perf_counter()
    with pytest.raises(TrackingUnavailableError) as caught:
        tracking.connect_to(f"{scheme}://user:secret@127.0.0.1:{free_port}/db")
    assert time.perf_counter() - started < 2 * tracking.PROBE_SECONDS
    assert "secret" not in str(caught.value)
    assert f"127.0.0.1:{free_port}" in str(caught.value)
    assert "Connection refused" in str(caught.value)


def test_a_database_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path / "none")):
        tracking.connect_to(f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}")


def test_the_tracking_uri_of_the_environment_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.connect().tracking_uri == uri
    assert tracking.configured_uri(tmp_path / "home") == uri
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.configured_uri(tmp_path / "home") == tracking.local_uri(tmp_path / "home")


def test_a_client_is_available_only_while_its_store_responds(
    tmp_path: Path, free_port: int
) -> None:
    assert tracking.is_available(tracking.connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}"))
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port}")
    assert not tracking.is_available(MlflowClient())


def test_a_connection_failure_is_recognised_below_the_errors_raised_from_it() -> None:
    try:
        try:
            raise requests.ConnectionError("no route")
        except requests.ConnectionError as error:
            raise MlflowException("API request failed") from error
    except MlflowException as error:
        raised = error
    assert tracking.is_connection_failure(raised)
    assert tracking.is_connection_failure(TrackingUnavailableError("down"))
    assert not tracking.is_connection_failure(MlflowException("no such run"))


def test_artifacts_of_a_local_database_are_stored_beside_it(tmp_path: Path) -> None:
    client = tracking.connect_to(f"sqlite:///{tmp_path / 'mlflow.db'}")
    first = tracking.experiment_id(client)
    assert client.get_experiment(first).artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert tracking.experiment_id(client) == first


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:SECRET@host:1/s", "postgresql://host:1/s"),
        ("mysql+pymysql://u:SE/?CR@ET@host/s", "mysql+pymysql://host/s"),
        ("postgresql://host/s?user=u&password=SECRET", "postgresql://host/s"),
        ("http://user:SECRET@host/ failed: timed out?", "http://host/ failed: timed out?"),
        ("http://host:5000/mlflow", "http://host:5000/mlflow"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_login_and_query_of_a_uri_are_redacted(text: str, shown: str) -> None:
    assert tracking.redacted(text) == shown


def test_the_summary_of_an_error_that_quotes_the_uri_shows_no_password() -> None:
    error = MlflowException("API request to http://u:SECRET@host/api failed with timeout exception")
    assert "SECRET" not in tracking.summarize_error(error)


def test_the_summary_of_an_error_is_one_line_with_the_type_on_request() -> None:
    error = ValueError("bad value\nsecond line")
    assert tracking.summarize_error(error) == "bad value"
    assert tracking.summarize_error(error, with_type=True) == "ValueError: bad value"
    assert tracking.summarize_error(KeyError()) == "KeyError"


def test_the_summary_of_a_failed_request_is_its_cause() -> None:
    error = MlflowException(
        "HTTPConnectionPool(host='h', port=1): Max retries exceeded with url: /api "
        "(Caused by NewConnectionError('<object>: Connection refused'))"
    )
    assert tracking.summarize_error(error) == "Connection refused"


def test_a_tracking_database_that_is_locked_is_refused_within_seconds(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("CREATE TABLE things (name TEXT)")
    other.execute("BEGIN EXCLUSIVE")
    started = time.perf_counter()
    with pytest.raises(TrackingUnavailableError, match="is locked by another process"):
        tracking.connect_to(f"sqlite:///{file}")
    other.close()
    assert time.perf_counter() - started < 2 * tracking.PROBE_SECONDS


def test_a_deleted_experiment_is_refused_with_the_way_to_restore_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = tracking.connect_to(uri)
    experiment = tracking.experiment_id(client)
    client.delete_experiment(experiment)
    with pytest.raises(UserError, match=f"restore --experiment-id {experiment}"):
        tracking.connect_to(uri)
    client.restore_experiment(experiment)
    assert tracking.experiment_id(tracking.connect_to(uri)) == experiment
