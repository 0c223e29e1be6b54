"""The compression jobs that a recompress file describes, and their state, read from the registry.

Nothing is stored elsewhere. The tags of a compressed version name its source (`source_name`,
`source_version`, `source_hash`, `settings_hash`); it is created with these tags, so no crash leaves
a version without them. The tags of a source version name its compressed version
(`adapruner.compressed.<settings>`) and the last attempt (`adapruner.state.<settings>`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from adapruner.hashing import hash_json
from pipelines.recompress.config import Entry, RecompressFile, Retry, Versions
from pipelines.recompress.lock import Lock, all_locks
from steps.mlflow_support.tracking import MISSING
from steps.publishing.provenance import settings_hash

READY = "READY"
REASON_LENGTH = 500
PENDING = frozenset({"new", "due", "dead"})
"""The states of jobs that a pass runs."""


def _in_utc(time: datetime) -> datetime:
    """Raises ValueError for a time that UTC can't express, such as one in the year 1."""
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from None


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class JobRecord(BaseModel):
    """The last attempt at a job; times in UTC. Unknown fields come from a later release.

    `replaces`: the source version has changed since it was compressed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: Literal["running", "failed", "put_back", "done", "changed"]
    at: Time
    attempts: int = Field(0, ge=0)
    until: Time | None = None
    reason: str | None = None
    owner: str | None = None
    fingerprint: str | None = None
    source_hash: str | None = None
    replaces: bool = False
    target: str | None = None


@dataclass(frozen=True)
class CompressionJob:
    """One source version with one set of settings, and its compressed versions, newest first.

    `settings` is the hash of the settings; `lock` is that of a living owner.
    """

    entry: Entry
    version: ModelVersion
    settings: str
    compressed: tuple[ModelVersion, ...]
    lock: Lock | None

    @property
    def id(self) -> tuple[str, str, str]:
        """Name and number of the source version, and the name of the target."""
        return self.entry.source, str(self.version.version), self.entry.target

    @property
    def key(self) -> str:
        """The key of the job's lock."""
        return key_of(self.version, self.settings)

    @property
    def state_tag(self) -> str:
        """The tag of the source version that holds the record."""
        return f"adapruner.state.{self.settings[:12]}"

    @property
    def record(self) -> JobRecord | None:
        """The last attempt; None if there was none or its record can't be read."""
        try:
            return JobRecord.model_validate_json(self.version.tags[self.state_tag])
        except (KeyError, ValidationError):
            return None

    @property
    def attempts(self) -> int:
        """The number of attempts that count."""
        return self.record.attempts if self.record else 0


@dataclass(frozen=True)
class JobStatus:
    """The state of a job, see `status_of`; why it is in this state, and until when it waits."""

    state: str
    reason: str | None = None
    until: datetime | None = None


def list_jobs(client: MlflowClient, file: RecompressFile) -> list[CompressionJob]:
    """A job for every source version that the file selects, by entry and version."""
    locks = all_locks(client)
    return [job for entry in file.config.models for job in _jobs_of(client, file, entry, locks)]


def refresh(client: MlflowClient, job: CompressionJob) -> CompressionJob | None:
    """The job as the registry shows it now; None if the source version was deleted."""
    version = find_version(client, job.entry.source, str(job.version.version))
    if version is None or version.creation_timestamp != job.version.creation_timestamp:
        return None
    compressed = _compressed_versions(client, job.entry, job.settings)
    return CompressionJob(
        job.entry, version, job.settings, compressed.get(str(version.version), ()), None
    )


def find_version(client: MlflowClient, name: str, version: str) -> ModelVersion | None:
    """A registered version, or None."""
    return _none_if_missing(lambda: client.get_model_version(name, version))


def version_with_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version of a registered model that has an alias, or None."""
    return _none_if_missing(lambda: client.get_model_version_by_alias(name, alias))


def status_of(job: CompressionJob, retry: Retry, now: datetime) -> JobStatus:
    """The status of a job by the registry's tags and locks; the files are not read.

    States: done, changed, running, failed (given up), waiting, not_ready; and of a job that is to
    be run: new, due, dead (its process has ended early).
    """
    record = job.record
    if record is not None and record.state == "changed":
        return JobStatus("changed", record.reason)
    if job.compressed and not (record and record.replaces):
        return JobStatus("done", f"models:/{job.compressed[0].name}/{job.compressed[0].version}")
    if job.version.status != READY:
        return JobStatus("not_ready", f"its status is {job.version.status}")
    if job.lock is not None:
        return JobStatus("running", f"{job.lock.holder} works on it")
    if record is None:
        return JobStatus("new")
    if record.state == "running":
        return _status_of_dead(record, retry)
    if record.state == "failed":
        return _status_of_failed(record, retry, now)
    if record.state == "done":
        return JobStatus("due", f"its compressed version {record.target} was deleted")
    return JobStatus("due", record.reason)


def write_record(client: MlflowClient, job: CompressionJob, state: str, **fields: Any) -> JobRecord:
    """Writes the record of a job in one request, so that it is never incomplete."""
    fields["reason"] = fields.get("reason") and str(fields["reason"])[:REASON_LENGTH]
    record = JobRecord(state=state, at=datetime.now(UTC), **fields)
    text = record.model_dump_json(exclude_none=True)
    name, version, _ = job.id
    client.set_model_version_tag(name, version, job.state_tag, text)
    return record


def write_done(
    client: MlflowClient, job: CompressionJob, compressed: ModelVersion, fingerprint: str
) -> None:
    """Records at the source version that it was compressed, as which version."""
    target = f"{compressed.name}/{compressed.version}"
    name, version, _ = job.id
    tag = f"adapruner.compressed.{job.settings[:12]}"
    client.set_model_version_tag(name, version, tag, f"models:/{target}")
    source_hash = compressed.tags.get("source_hash")
    write_record(
        client, job, "done", target=target, fingerprint=fingerprint, source_hash=source_hash
    )


def key_of(version: ModelVersion, settings: str) -> str:
    """The key of the lock of a source version with the settings of this hash."""
    return hash_json([version.name, version.version, version.creation_timestamp, settings])[:24]


def _none_if_missing(query: Callable[[], ModelVersion]) -> ModelVersion | None:
    try:
        return query()
    except MlflowException as error:
        # A missing alias has an error code of its own.
        if error.error_code == MISSING or ("alias" in str(error) and "not found" in str(error)):
            return None
        raise


def _jobs_of(
    client: MlflowClient, file: RecompressFile, entry: Entry, locks: list[Lock]
) -> Iterator[CompressionJob]:
    settings = settings_hash(file.run_of(entry, "1")[1])
    compressed = _compressed_versions(client, entry, settings)
    alive = {lock.key: lock for lock in locks if lock.is_alive}
    for version in _selected_versions(client, entry.source, entry.versions):
        lock = alive.get(key_of(version, settings))
        versions = compressed.get(str(version.version), ())
        yield CompressionJob(entry, version, settings, versions, lock)


def _selected_versions(client: MlflowClient, name: str, selection: Versions) -> list[ModelVersion]:
    if selection.alias is not None:
        version = version_with_alias(client, name, selection.alias)
        return [] if version is None else [version]
    query = f"name = '{name}'"
    if selection.tag is not None:
        key, _, value = selection.tag.partition("=")
        query += f" and tags.`{key}` = '{value}'"
    versions = sorted(_search(client, query), key=lambda v: int(v.version))
    return versions[-selection.newest :] if selection.newest else versions


def _compressed_versions(
    client: MlflowClient, entry: Entry, settings: str
) -> dict[str, tuple[ModelVersion, ...]]:
    """Number of the source version -> its compressed versions, newest first."""
    query = (
        f"name = '{entry.target}' and tags.source_name = '{entry.source}' "
        f"and tags.settings_hash = '{settings}'"
    )
    compressed: dict[str, tuple[ModelVersion, ...]] = {}
    for version in sorted(_search(client, query), key=lambda v: -int(v.version)):
        source = version.tags.get("source_version", "")
        compressed[source] = (*compressed.get(source, ()), version)
    return compressed


def _search(client: MlflowClient, query: str) -> list[ModelVersion]:
    versions: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(query, page_token=token)
        versions += page
        token = page.token
        if not token:
            return versions


def _status_of_dead(record: JobRecord, retry: Retry) -> JobStatus:
    reason = f"the process {record.owner} that worked on it has ended"
    if record.attempts >= retry.attempts:
        return JobStatus("failed", f"{reason}, at attempt {record.attempts} of {retry.attempts}")
    return JobStatus("dead", reason)


def _status_of_failed(record: JobRecord, retry: Retry, now: datetime) -> JobStatus:
    if record.attempts >= retry.attempts:
        return JobStatus("failed", record.reason)
    if record.until is not None and now < record.until:
        return JobStatus("waiting", record.reason, record.until)
    return JobStatus("due", record.reason)
