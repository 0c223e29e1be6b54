from __future__ import annotations

import socket
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from adapruner.errors import UserError
from steps.mlflow_support import tracking


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_store_that_does_not_answer_fails_at_once_and_shows_no_password(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    uri = f"{scheme}://user:secret@127.0.0.1:{port}/db"
    started = time.perf_counter()
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with pytest.raises(UserError, match="does not answer") as caught:
            tracking._check_answers(uri)
    finally:
        mlflow.set_tracking_uri(before)
    assert time.perf_counter() - started < 2 * tracking.PROBE_SECONDS
    assert "secret" not in str(caught.value)
    assert "Connection refused" in str(caught.value)


def test_a_database_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        tracking._check_answers(f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}")


@pytest.mark.parametrize(
    ("given", "shown"),
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
def test_what_may_hold_a_password_is_not_shown(given: str, shown: str) -> None:
    assert tracking.redacted(given) == shown


def test_an_error_that_quotes_the_uri_shows_no_password() -> None:
    error = MlflowException("API request to http://u:SECRET@host/api failed with timeout exception")
    assert "SECRET" not in tracking.first_line(error)
