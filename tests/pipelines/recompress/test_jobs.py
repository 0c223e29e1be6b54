from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from pipelines.recompress.config import Entry, Retry
from pipelines.recompress.lineage import Record, Work, stand
from pipelines.recompress.lock import Lock

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RETRY = Retry(attempts=2)
LIVING = Lock("adapruner-lock-k-0", "held", {"host": "h", "pid": 7}, time.time() + 600)


def work(
    record: dict[str, Any] | None = None,
    made: bool = False,
    lock: Lock | None = None,
    status: str = "READY",
) -> Work:
    tags = []
    if record is not None:
        text = Record(at=NOW, **record).model_dump_json()
        tags = [ModelVersionTag("adapruner.state." + "0" * 12, text)]
    source = ModelVersion("m", "1", 5, status=status, tags=tags)
    results = (ModelVersion("t", "9", 6),) if made else ()
    return Work(Entry(source="m", target="t"), source, "0" * 64, results, lock)


FAILED = {"state": "failed", "attempts": 1, "reason": "r", "until": NOW}
LATER = {**FAILED, "until": NOW + timedelta(seconds=1)}


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (work(), "new"),
        (work(status="PENDING_REGISTRATION"), "not_ready"),
        (work(made=True), "done"),
        (work({"state": "done"}, made=True), "done"),
        (work({"state": "done"}), "due"),
        (work({"state": "running", "attempts": 1}, lock=LIVING), "running"),
        (work(lock=LIVING), "running"),
        (work({"state": "running", "attempts": 1, "owner": "h:7"}), "dead"),
        (work({"state": "running", "attempts": 2, "owner": "h:7"}), "failed"),
        (work({"state": "running", "attempts": 2}, made=True), "done"),
        (work(FAILED), "due"),
        (work(LATER), "waiting"),
        (work({**LATER, "attempts": 2}), "failed"),
        (work({"state": "put_back", "attempts": 1}), "due"),
        (work({"state": "changed", "replaces": True}, made=True), "changed"),
        (work({**LATER, "replaces": True}, made=True), "waiting"),
        (work({"state": "running", "attempts": 1, "replaces": True}, made=True), "dead"),
    ],
)
def test_where_a_version_stands(given: Work, word: str) -> None:
    standing = stand(given, RETRY, NOW)
    assert standing.word == word
    assert (standing.until is not None) is (word == "waiting")


def test_what_a_later_release_wrote_or_nobody_can_read_is_no_crash() -> None:
    given = work({"state": "done"})
    for text, known in [('{"state": "done", "at": "2026-01-01T00:00:00Z", "x": 1}', True),
                        ("{", False)]:  # fmt: skip
        given.version._tags[given.state_tag] = text
        assert (given.record is not None) is known


def test_the_same_number_of_a_model_made_anew_is_another_work() -> None:
    first, second = work(), work()
    second.version._creation_time = 6
    assert first.key != second.key
