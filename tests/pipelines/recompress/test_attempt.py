from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from adapruner.errors import UserError
from pipelines.log import EventLog
from pipelines.recompress.attempt import PassContext, reason_of
from pipelines.recompress.config import RecompressFile
from tests.pipelines import small


def test_only_the_selected_events_are_sent_and_a_failure_to_send_is_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    notify = {"url_env": "HOOK", "events": ["promotion"]}
    content = {**small.config(tmp_path), "models": [{"source": "a", "target": "b"}]}
    path = tmp_path / "recompress.yaml"
    path.write_text(yaml.safe_dump({**content, "notify": notify}))
    stream = io.StringIO()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    context = PassContext(client, RecompressFile(path), tmp_path, EventLog(stream))
    for event in ("failed", "skipped", "promoted"):
        context.report(event, source="a")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["failed", "skipped", "promoted", "not_notified"]


def test_only_an_error_of_the_program_prints_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert reason_of(UserError("no such file\ngive another")) == "no such file give another"
    assert capsys.readouterr().err == ""
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as error:
        reason = reason_of(error)
    assert "division by zero" in reason
    assert "\n" not in reason
    assert "Traceback" in capsys.readouterr().err
