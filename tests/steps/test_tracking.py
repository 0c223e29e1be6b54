from __future__ import annotations

import socket
import time
from pathlib import Path

import mlflow
import pytest

from adapruner.errors import UserError
from steps import tracking


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
