"""Tags in the registry, which other users may set: records of jobs, locks and decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.recompress import jobs, lock, promotion, status
from pipelines.recompress.config import Promotion, RecompressFile, Retry
from tests.malformed.mutations import (
    ODD,
    WRONG,
    WRONG_JSON,
    as_json,
    with_characters,
    with_key,
    with_value,
)
from tests.malformed.outcomes import examples, is_refused
from tests.pipelines.recompress.registry import Registry

OWNER = {"host": "h", "machine": "m", "pid": 7, "started": "1"}
RECORD = {"state": "failed", "at": "2026-01-01T00:00:00Z", "attempts": 1, "reason": "r",
          "until": "2026-01-01T01:00:00Z", "fingerprint": "f", "replaces": False}  # fmt: skip
TIMES = ('"2026-01-01T00:00:00"', '"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"')
DECISION = {"decision": "champion", "at": "2026-01-01T00:00:00Z"}


def tag(valid: dict[str, Any]) -> st.SearchStrategy[str]:
    """The text of a tag: JSON, changed JSON, or none. MLflow takes at most 5000 characters."""
    changed = st.one_of(
        with_value(valid, ODD + WRONG + WRONG_JSON + TIMES),
        with_key(valid),
        with_characters(as_json(valid)).map(lambda data: data.decode(errors="replace")),
        st.sampled_from((*ODD, *WRONG, *WRONG_JSON)),
        st.text(max_size=20),
    )
    return changed.map(lambda text: text[:4000].replace("\0", ""))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    registry.client.create_registered_model("m")
    for _ in range(2):
        registry.client.create_model_version("m", "s3://bucket/checkpoint")
    registry.client.create_registered_model("m-small")
    yield registry


def rows(registry: Registry) -> list[dict[str, Any]]:
    """The rows of `adapruner status`, which was printed as a table as well."""
    file = jobs_file(registry)
    status.print_status(file, registry.home, as_json=False)
    return status.rows(file, registry.home)


def jobs_file(registry: Registry) -> RecompressFile:
    return RecompressFile(registry.plan("m"))


@given(text=tag(RECORD))
@example(text=json.dumps(RECORD | {"until": "2026-01-01T00:00:00"}))
@example(text=json.dumps(RECORD | {"at": "0001-01-01T00:00:00+14:00"}))
@example(text=json.dumps(RECORD | {"reason": "[/red]\x1b[2J"}))
@examples(8)
def test_any_record_of_one_version_leaves_the_other(registry: Registry, text: str) -> None:
    (first, _) = jobs.list_jobs(registry.client, jobs_file(registry))
    registry.client.set_model_version_tag("m", "1", first.state_tag, text)
    shown: list[dict[str, Any]] = []
    assert not is_refused(lambda: shown.extend(rows(registry)), registry.folder)
    assert [row["version"] for row in shown] == ["1", "2"]
    assert shown[1]["state"] == "new"


@given(owner=tag(OWNER), expires=st.sampled_from((*ODD, *WRONG_JSON, "x", "1e10")) | st.text())
@examples(60)
def test_any_tags_of_a_lock_are_read(owner: str, expires: str) -> None:
    """A lock is alive or dead; one without a valid expiry is dead."""
    for tags in ({"owner": owner, "expires": expires}, {"owner": owner}, {"expires": expires}):
        read = lock._read(f"{lock.PREFIX}k-1", tags)
        assert read.is_alive in (True, False)
        assert read.holder
    assert not lock._read("x", {"owner": owner, "expires": "NaN"}).is_alive


@pytest.fixture(scope="module")
def job(registry: Registry) -> jobs.CompressionJob:
    return jobs.list_jobs(registry.client, jobs_file(registry))[0]


@given(text=tag(RECORD))
@examples(150)
def test_any_record_gives_a_state(job: jobs.CompressionJob, text: str) -> None:
    job.version._tags[job.state_tag] = text
    found = jobs.status_of(job, Retry(attempts=3), datetime(2026, 1, 2, tzinfo=UTC))
    assert found.state in {"new", "due", "dead", "failed", "waiting", "changed"}
    record = job.record
    assert record is None or jobs.JobRecord.model_validate_json(record.model_dump_json()) == record


@given(
    decision=tag(DECISION),
    gate=st.sampled_from(("passed", "banana", "[]", "")),
    value=tag({"a": 1}),
)
@examples(15)
def test_any_tags_of_a_compressed_version_give_a_decision(
    registry: Registry, decision: str, gate: str, value: str
) -> None:
    tags = {"text_ppl_seq16": value, "gate": gate}
    version = registry.client.create_model_version("m-small", "s3://b/c", tags=tags)
    settings = Promotion(metric="text_ppl_seq16")
    made: list[Any] = []
    call = lambda: made.append(promotion.decide(registry.client, settings, version))  # noqa: E731
    assert not is_refused(call, registry.folder / "none")
    assert made[0]["decision"] in ("candidate", "champion", "rejected")
    registry.client.set_model_version_tag("m-small", version.version, promotion.TAG, decision)
    assert promotion.decide(registry.client, settings, version) is None
    status._decision_of(registry.client.get_model_version("m-small", version.version))
