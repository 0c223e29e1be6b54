"""What the registry knows: source versions, their compressed versions, and how far each got.

Nothing is kept elsewhere. A compressed version says in its tags what it was made from
(`source_name`, `source_version`, `source_hash`, `settings_hash`); it is made with these tags, so no
crash leaves one without. A source version says back where its compressed version is
(`adapruner.compressed.<settings>`), and how the last attempt went (`adapruner.state.<settings>`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict, ValidationError

from adapruner.hashing import hash_json
from pipelines.recompress.lock import Lock, all_locks
from pipelines.recompress.config import Entry, Plan, Retry, Versions
from steps.publishing.provenance import settings_hash

GONE = "RESOURCE_DOES_NOT_EXIST"
READY = "READY"
REASON_LENGTH = 500
TO_DO = frozenset({"new", "due", "dead"})


class Record(BaseModel):
    """How far a source version got; times in UTC. Unknown fields are a later release's.

    `replaces`: what is compressed is no longer what the version held when it was compressed before.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: Literal["running", "failed", "put_back", "done", "changed"]
    at: datetime
    attempts: int = 0
    until: datetime | None = None
    reason: str | None = None
    owner: str | None = None
    fingerprint: str | None = None
    source_hash: str | None = None
    replaces: bool = False
    target: str | None = None


@dataclass(frozen=True)
class Work:
    """One source version and what was made of it, the newest first."""

    entry: Entry
    version: ModelVersion
    settings: str
    made: tuple[ModelVersion, ...]
    lock: Lock | None

    @property
    def id(self) -> tuple[str, str, str]:
        return self.entry.source, str(self.version.version), self.entry.target

    @property
    def key(self) -> str:
        """The name of this work's lock: one source version, compressed one way."""
        return key_of(self.version, self.settings)

    @property
    def state_tag(self) -> str:
        return f"adapruner.state.{self.settings[:12]}"

    @property
    def record(self) -> Record | None:
        try:
            return Record.model_validate_json(self.version.tags[self.state_tag])
        except (KeyError, ValidationError):
            return None


@dataclass(frozen=True)
class Standing:
    """Where a work stands: a word of `stand`, why, and until when it waits."""

    word: str
    reason: str | None = None
    until: datetime | None = None


def find(client: MlflowClient, plan: Plan) -> list[Work]:
    """Every source version that the plan names, in the order of its entries and versions."""
    locks = all_locks(client)
    return [work for entry in plan.config.models for work in _of_entry(client, plan, entry, locks)]


def look_again(client: MlflowClient, work: Work) -> Work | None:
    """The same work as the registry shows it now; None where the version was deleted."""
    version = existing(client, work.entry.source, str(work.version.version))
    if version is None or version.creation_timestamp != work.version.creation_timestamp:
        return None
    made = _made(client, work.entry, work.settings).get(str(version.version), ())
    return Work(work.entry, version, work.settings, made, None)


def existing(client: MlflowClient, name: str, version: str) -> ModelVersion | None:
    """A registered version, or None."""
    return or_none(lambda: client.get_model_version(name, version))


def by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias is on, or None."""
    return or_none(lambda: client.get_model_version_by_alias(name, alias))


def stand(work: Work, retry: Retry, now: datetime) -> Standing:
    """Where a work stands by what the registry shows; its files are not looked at.

    done, changed, running, failed (not tried again), waiting, not_ready; or something is to do:
    new, due, dead (the process that did it is gone).
    """
    record = work.record
    if record is not None and record.state == "changed":
        return Standing("changed", record.reason)
    if work.made and not (record and record.replaces):
        return Standing("done", f"models:/{work.made[0].name}/{work.made[0].version}")
    if work.version.status != READY:
        return Standing("not_ready", f"its status is {work.version.status}")
    if work.lock is not None:
        return Standing("running", f"{work.lock.holder} works on it")
    if record is None:
        return Standing("new")
    if record.state == "running":
        return _of_dead(record, retry)
    if record.state == "failed":
        return _of_failed(record, retry, now)
    if record.state == "done":
        return Standing("due", f"its compressed version {record.target} is gone")
    return Standing("due", record.reason)


def write(client: MlflowClient, work: Work, state: str, **fields: Any) -> Record:
    """Set the record of a source version, in one request, so that it is never half of it."""
    fields["reason"] = fields.get("reason") and str(fields["reason"])[:REASON_LENGTH]
    record = Record(state=state, at=datetime.now(UTC), **fields)
    text = record.model_dump_json(exclude_none=True)
    client.set_model_version_tag(*work.id[:2], work.state_tag, text)
    return record


def finished(client: MlflowClient, work: Work, made: ModelVersion, fingerprint: str) -> None:
    """Let the source version say that, and where, its compressed version is."""
    where = f"{made.name}/{made.version}"
    tag = f"adapruner.compressed.{work.settings[:12]}"
    client.set_model_version_tag(*work.id[:2], tag, f"models:/{where}")
    known = {"fingerprint": fingerprint, "source_hash": made.tags["source_hash"]}
    write(client, work, "done", target=where, **known)


def key_of(version: ModelVersion, settings: str) -> str:
    return hash_json([version.name, version.version, version.creation_timestamp, settings])[:24]


def or_none(ask: Callable[[], ModelVersion]) -> ModelVersion | None:
    """The answer, or None where the registry has no such thing."""
    try:
        return ask()
    except MlflowException as error:
        # An alias that is not there has a code of its own.
        if error.error_code == GONE or ("alias" in str(error) and "not found" in str(error)):
            return None
        raise


def _of_entry(client: MlflowClient, plan: Plan, entry: Entry, locks: list[Lock]) -> Iterator[Work]:
    settings = settings_hash(plan.run_of(entry, "1")[1])
    made = _made(client, entry, settings)
    alive = {lock.key: lock for lock in locks if lock.alive}
    for version in _chosen(client, entry.source, entry.versions):
        lock = alive.get(key_of(version, settings))
        yield Work(entry, version, settings, made.get(str(version.version), ()), lock)


def _chosen(client: MlflowClient, name: str, chosen: Versions) -> list[ModelVersion]:
    if chosen.alias is not None:
        found = by_alias(client, name, chosen.alias)
        return [] if found is None else [found]
    query = f"name = '{name}'"
    if chosen.tag is not None:
        key, _, value = chosen.tag.partition("=")
        query += f" and tags.`{key}` = '{value}'"
    versions = sorted(_search(client, query), key=lambda v: int(v.version))
    return versions[-chosen.newest :] if chosen.newest else versions


def _made(client: MlflowClient, entry: Entry, settings: str) -> dict[str, tuple[ModelVersion, ...]]:
    """Version of the source -> its compressed versions, the newest first."""
    query = (
        f"name = '{entry.target}' and tags.source_name = '{entry.source}' "
        f"and tags.settings_hash = '{settings}'"
    )
    made: dict[str, tuple[ModelVersion, ...]] = {}
    for version in sorted(_search(client, query), key=lambda v: -int(v.version)):
        of = version.tags.get("source_version", "")
        made[of] = (*made.get(of, ()), version)
    return made


def _search(client: MlflowClient, query: str) -> list[ModelVersion]:
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(query, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _of_dead(record: Record, retry: Retry) -> Standing:
    reason = f"the process {record.owner} that worked on it is gone"
    if record.attempts >= retry.attempts:
        return Standing("failed", f"{reason}, at attempt {record.attempts} of {retry.attempts}")
    return Standing("dead", reason)


def _of_failed(record: Record, retry: Retry, now: datetime) -> Standing:
    if record.attempts >= retry.attempts:
        return Standing("failed", record.reason)
    if record.until is not None and now < record.until:
        return Standing("waiting", record.reason, record.until)
    return Standing("due", record.reason)
