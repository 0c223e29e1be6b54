from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from pipelines.recompress.config import Entry, RecompressFile, Retry
from pipelines.recompress.jobs import (
    REASON_LENGTH,
    CompressionJob,
    JobRecord,
    list_jobs,
    refresh,
    status_of,
    write_done,
    write_record,
)
from pipelines.recompress.lock import Lock
from tests.pipelines import small

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RETRY = Retry(attempts=2)
LIVING = Lock("adapruner-lock-k-0", "held", {"host": "h", "pid": 7}, time.time() + 600)


def job(
    record: dict[str, Any] | None = None,
    compressed: bool = False,
    lock: Lock | None = None,
    status: str = "READY",
) -> CompressionJob:
    tags = []
    if record is not None:
        text = JobRecord(at=NOW, **record).model_dump_json()
        tags = [ModelVersionTag("adapruner.state." + "0" * 12, text)]
    source = ModelVersion("m", "1", 5, status=status, tags=tags)
    results = (ModelVersion("t", "9", 6),) if compressed else ()
    return CompressionJob(Entry(source="m", target="t"), source, "0" * 64, results, lock)


FAILED = {"state": "failed", "attempts": 1, "reason": "r", "until": NOW}
LATER = {**FAILED, "until": NOW + timedelta(seconds=1)}


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (job(), "new"),
        (job(status="PENDING_REGISTRATION"), "not_ready"),
        (job(compressed=True), "done"),
        (job({"state": "done"}, compressed=True), "done"),
        (job({"state": "done"}), "due"),
        (job({"state": "running", "attempts": 1}, lock=LIVING), "running"),
        (job(lock=LIVING), "running"),
        (job({"state": "running", "attempts": 1, "owner": "h:7"}), "dead"),
        (job({"state": "running", "attempts": 2, "owner": "h:7"}), "failed"),
        (job({"state": "running", "attempts": 2}, compressed=True), "done"),
        (job(FAILED), "due"),
        (job(LATER), "waiting"),
        (job({**LATER, "attempts": 2}), "failed"),
        (job({"state": "put_back", "attempts": 1}), "due"),
        (job({"state": "changed", "replaces": True}, compressed=True), "changed"),
        (job({**LATER, "replaces": True}, compressed=True), "waiting"),
        (job({"state": "running", "attempts": 1, "replaces": True}, compressed=True), "dead"),
    ],
)
def test_the_state_follows_from_tags_and_locks(value: CompressionJob, state: str) -> None:
    status = status_of(value, RETRY, NOW)
    assert status.state == state
    assert (status.until is not None) is (state == "waiting")


@pytest.mark.parametrize(
    ("text", "is_readable"),
    [('{"state": "done", "at": "2026-01-01T00:00:00Z", "x": 1}', True), ("{", False)],
)
def test_a_record_of_a_later_release_is_read_and_an_invalid_one_ignored(
    text: str, is_readable: bool
) -> None:
    value = job({"state": "done"})
    value.version._tags[value.state_tag] = text
    assert (value.record is not None) is is_readable


def test_a_deleted_and_recreated_version_has_another_lock() -> None:
    first, second = job(), job()
    second.version._creation_time = 6
    assert first.key != second.key


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_registered_model("m")
    return client


def recompress_file(folder: Path, **versions: object) -> RecompressFile:
    entry = {"source": "m", "target": "m-small", "versions": versions or "all"}
    path = folder / "recompress.yaml"
    path.write_text(yaml.safe_dump({**small.config(folder), "models": [entry]}))
    return RecompressFile(path)


def test_jobs_are_the_selected_versions(client: MlflowClient, tmp_path: Path) -> None:
    for tags in ({"stage": "a"}, {"stage": "b"}, {}):
        client.create_model_version("m", "s3://b/c", tags=tags)
    client.set_registered_model_alias("m", "best", "1")
    for versions, selected in (
        ({}, ["1", "2", "3"]),
        ({"newest": 2}, ["2", "3"]),
        ({"alias": "best"}, ["1"]),
        ({"alias": "none"}, []),
        ({"tag": "stage=b"}, ["2"]),
    ):
        jobs = list_jobs(client, recompress_file(tmp_path, **versions))
        assert [listed.id for listed in jobs] == [("m", v, "m-small") for v in selected]


def test_a_record_and_the_compressed_version_are_in_the_tags(
    client: MlflowClient, tmp_path: Path
) -> None:
    file = recompress_file(tmp_path)
    client.create_model_version("m", "s3://b/c")
    (listed,) = list_jobs(client, file)
    write_record(client, listed, "failed", attempts=2, reason="x" * 1000)
    (listed,) = list_jobs(client, file)
    assert listed.record is not None
    assert (listed.attempts, len(listed.record.reason or "")) == (2, REASON_LENGTH)

    client.create_registered_model("m-small")
    tags = {"source_name": "m", "source_version": "1", "settings_hash": listed.settings}
    tags["source_hash"] = "0" * 64
    compressed = client.create_model_version("m-small", "s3://b/d", tags=tags)
    write_done(client, listed, compressed, "fingerprint")
    (listed,) = list_jobs(client, file)
    assert [str(version.version) for version in listed.compressed] == ["1"]
    assert status_of(listed, RETRY, NOW).state == "done"
    tag = f"adapruner.compressed.{listed.settings[:12]}"
    assert client.get_model_version("m", "1").tags[tag] == "models:/m-small/1"

    client.delete_model_version("m-small", "1")
    current = refresh(client, listed)
    assert current is not None
    assert status_of(current, RETRY, NOW).state == "due"
    client.delete_model_version("m", "1")
    assert refresh(client, listed) is None
