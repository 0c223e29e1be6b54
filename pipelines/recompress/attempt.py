"""One attempt at a compression job: its record, the run of the pipeline, and the promotion."""

from __future__ import annotations

import os
import socket
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipelines import local_run
from pipelines.durations import MAX_SECONDS
from pipelines.errors import explain, is_full_disk
from pipelines.log import EventLog
from pipelines.recompress import jobs, notify, promotion
from pipelines.recompress.config import RecompressFile
from pipelines.recompress.jobs import CompressionJob
from steps.mlflow_support import registered_checkpoints, tracking


@dataclass
class PassContext:
    """What the jobs of a pass share. `outcomes` counts the jobs by their outcome."""

    client: MlflowClient
    file: RecompressFile
    home: Path
    log: EventLog
    outcomes: Counter[str] = field(default_factory=Counter)
    is_prepared: bool = False

    def report(self, event: str, **fields: Any) -> None:
        """Logs an event, and sends it to the webhook if the file says so."""
        content = self.log.emit(event, **fields)
        settings = self.file.config.notify
        if settings is not None and notify.KINDS.get(event) in settings.events:
            problem = notify.send(content, settings.body, settings.url_env, settings.timeout)
            if problem is not None:
                self.log.emit("not_notified", reason=problem)

    def store_fails(self, error: BaseException) -> bool:
        """Whether an error is, or came with, a registry that does not answer."""
        return tracking.is_connection_failure(error) or not tracking.is_available(self.client)

    def ends_pass(self, error: BaseException) -> bool:
        """Whether an error is about what all jobs need: the disk or the registry."""
        return is_full_disk(error) or self.store_fails(error)

    def skip_deleted(self) -> None:
        """Logs that the source version of a job was deleted during the pass."""
        reason = "the source version was deleted meanwhile"
        self.log.emit("skipped", why="deleted", reason=reason)
        self.outcomes["skipped"] += 1


def run_attempt(context: PassContext, job: CompressionJob, is_first: bool) -> None:
    """Compresses the version of a job, whose lock is held, and decides about its promotion.

    `is_first` counts attempts from 1 again. A failure of the job is recorded and reported. Raises
    what ends the pass, after the job was put back.
    """
    attempts = 1 if is_first else job.attempts + 1
    fields: dict[str, Any] = {"attempts": attempts, "replaces": bool(job.compressed)}
    try:
        fields["fingerprint"] = registered_checkpoints.fingerprint(job.version)
        owner = f"{socket.gethostname()}:{os.getpid()}"
        jobs.write_record(context.client, job, "running", owner=owner, **fields)
        context.log.emit("started", target=job.entry.target, attempt=attempts)
        compressed = _compress(context, job)
    except Exception as error:
        _handle_error(context, job, fields, error)
        return
    except BaseException:
        _put_back(context, job, fields, "it was stopped")
        raise
    _finish(context, job, compressed, fields["fingerprint"])


def promote(context: PassContext, version: ModelVersion) -> None:
    """Decides about the promotion of a compressed version, unless that was done before."""
    decision = promotion.decide(context.client, context.file.config.promotion, version)
    if decision is None:
        return
    target = f"{version.name}/{version.version}"
    fields = {key: value for key, value in decision.items() if key != "at"}
    event = "promoted" if decision["decision"] == promotion.CHAMPION else "decided"
    context.report(event, target=target, **fields)


def reason_of(error: Exception) -> str:
    """One line about an error; an error of the program prints its traceback as well."""
    reason = explain(error)
    if reason is None:
        traceback.print_exception(error)
        reason = tracking.summarize_error(error, with_type=True)
    return reason


def _compress(context: PassContext, job: CompressionJob) -> ModelVersion:
    """Runs the pipeline; returns the registered version."""
    from steps.publishing.results import ModelVersionRecord, directory_of
    from steps.zenml_support import workspace

    values, config = context.file.run_of(job.entry, str(job.version.version))
    if not context.is_prepared:
        local_run.prepare(context.home)
        context.is_prepared = True
    try:
        with context.log.capture_logging():  # after `prepare`, which adds ZenML's handlers
            local_run.execute("compress", values)
    finally:
        workspace.remove_stage_directories()
    registered = ModelVersionRecord.read(directory_of(config))
    return context.client.get_model_version(registered.name, registered.version)


def _finish(
    context: PassContext, job: CompressionJob, compressed: ModelVersion, fingerprint: str
) -> None:
    try:
        jobs.write_done(context.client, job, compressed, fingerprint)
    except Exception:
        if jobs.refresh(context.client, job) is not None:
            raise
        reason = "deleted meanwhile; its compressed version stays"
        context.log.emit("source_deleted", reason=reason)
    context.log.emit(
        "compressed",
        target=f"{compressed.name}/{compressed.version}",
        source_hash=compressed.tags["source_hash"],
        settings_hash=job.settings,
        ratio=compressed.tags.get("ratio.achieved"),
    )
    context.outcomes["compressed"] += 1
    promote(context, compressed)


def _handle_error(
    context: PassContext, job: CompressionJob, fields: dict[str, Any], error: Exception
) -> None:
    if context.ends_pass(error):
        _put_back(context, job, fields, explain(error) or "the registry did not answer")
        raise error
    if jobs.refresh(context.client, job) is None:
        context.skip_deleted()
        return
    _record_failure(context, job, fields, reason_of(error))


def _record_failure(
    context: PassContext, job: CompressionJob, fields: dict[str, Any], reason: str
) -> None:
    retry, attempts = context.file.config.retry, fields["attempts"]
    is_last = attempts >= retry.attempts
    # After a year of waiting it is not doubled any more: the calendar ends.
    delay = timedelta(seconds=min(retry.backoff * 2 ** (attempts - 1), MAX_SECONDS))
    until = None if is_last else datetime.now(UTC) + delay
    jobs.write_record(context.client, job, "failed", reason=reason, until=until, **fields)
    event = "gave_up" if is_last else "failed"
    context.report(event, reason=reason, attempt=f"{attempts} of {retry.attempts}", until=until)
    context.outcomes[event] += 1


def _put_back(
    context: PassContext, job: CompressionJob, fields: dict[str, Any], reason: str
) -> None:
    """Records that this attempt does not count: its end was not the fault of the version.

    If even this fails, the next pass finds the owner of the job dead.
    """
    fields = {**fields, "attempts": fields["attempts"] - 1}
    with suppress(Exception):
        jobs.write_record(context.client, job, "put_back", reason=reason, **fields)
        context.log.emit("put_back", reason=reason)
