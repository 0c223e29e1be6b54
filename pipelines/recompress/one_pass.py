"""The work of one pass, job by job; a job that fails is recorded and never stops the others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pipelines.log import EventLog
from pipelines.recompress import jobs, lock, promotion
from pipelines.recompress.attempt import PassContext, promote, reason_of, run_attempt
from pipelines.recompress.config import RecompressFile
from pipelines.recompress.jobs import PENDING, CompressionJob, JobStatus
from pipelines.recompress.source_files import check_source_files, files_changed
from steps.mlflow_support import tracking


class RecompressPass:
    """One pass over the versions that a recompress file selects."""

    def __init__(self, file: RecompressFile, home: Path, log: EventLog, retry_failed: bool) -> None:
        """Raises TrackingUnavailableError if the registry does not answer."""
        client = tracking.connect_to(tracking.configured_uri(home))
        self.context = PassContext(client, file, home, log)
        self._client, self._config, self._log = client, file.config, log
        self._retry_failed = retry_failed

    def run(self) -> None:
        """Runs all jobs, also those of versions that arrive during the pass."""
        lock.delete_dead_locks(self._client)
        seen: set[tuple[str, str, str]] = set()
        while True:
            listed = jobs.list_jobs(self._client, self.context.file)
            new = [job for job in listed if job.id not in seen]
            if not seen:
                self._report_empty_entries(listed)
            if not new:
                return
            # Jobs with fewer attempts come first: a version that ends the process each time can't
            # keep the others from being compressed.
            for job in sorted(new, key=lambda job: job.attempts):
                seen.add(job.id)
                source, version, _ = job.id
                with self._log.context(source=source, version=version):
                    self._run_isolated(job)

    def _run_isolated(self, job: CompressionJob) -> None:
        """Runs one job; an error of this job alone is reported and does not reach the others."""
        try:
            self._run_job(job)
        except Exception as error:
            if self.context.ends_pass(error):
                raise
            self.context.report("failed", reason=reason_of(error))
            self.context.outcomes["failed"] += 1

    def _report_empty_entries(self, listed: list[CompressionJob]) -> None:
        sources = {job.entry.source for job in listed}
        for entry in self._config.models:
            if entry.source not in sources:
                reason = "the registry has no such version of it"
                self._log.emit("no_versions", source=entry.source, reason=reason)

    def _run_job(self, job: CompressionJob) -> None:
        status = self._status_of(job)
        if status.state in PENDING:
            self._run_locked(job)
        elif status.state == "done":
            self._check_done(job)
        elif status.state in ("failed", "waiting") and files_changed(job):
            reason = "its files have changed since it failed; the present ones are compressed"
            self._log.emit("changed", reason=reason)
            self._run_locked(job, is_first=True)
        elif status.state == "changed":
            self._run_changed(job)
        else:
            self._skip("held" if status.state == "running" else "skipped", status)

    def _status_of(self, job: CompressionJob) -> JobStatus:
        status = jobs.status_of(job, self._config.retry, datetime.now(UTC))
        if self._retry_failed and status.state in ("failed", "waiting"):
            return JobStatus("due", status.reason)
        return status

    def _skip(self, outcome: str, status: JobStatus) -> None:
        prefixes = {"failed": "given up: ", "waiting": "waits for the next attempt: "}
        reason = f"{prefixes.get(status.state, '')}{status.reason}"
        self._log.emit(outcome, why=status.state, reason=reason, until=status.until)
        self.context.outcomes[outcome] += 1

    def _run_locked(self, job: CompressionJob, is_first: bool = False) -> None:
        """Attempts a job under its lock, unless another process has done or deleted it."""
        with lock.hold(self._client, job.key, self._config.lock_expiry) as held:
            if held is None:
                self._skip("held", JobStatus("running", "another process works on it"))
                return
            current = jobs.refresh(self._client, job)
            if current is None:
                self.context.skip_deleted()
                return
            status = self._status_of(current)
            if status.state in PENDING or (is_first and current.record == job.record):
                gave_up = current.attempts >= self._config.retry.attempts
                run_attempt(self.context, current, is_first or gave_up)
                if held.lost:
                    reason = "the lock expired meanwhile; another process may have done the same"
                    self._log.emit("lock_lost", reason=reason)
            elif status.state == "done":
                self._check_done(current)
            else:
                self._skip("skipped", status)

    def _check_done(self, job: CompressionJob) -> None:
        """Skips a compressed version, unless its files have changed since."""
        if not self._has_same_files(job):
            return
        compressed = job.compressed[0]
        reason = f"compressed as {compressed.name}/{compressed.version}"
        self._log.emit("skipped", why="done", reason=reason)
        self.context.outcomes["skipped"] += 1
        if promotion.TAG not in compressed.tags:
            promote(self.context, compressed)

    def _has_same_files(self, job: CompressionJob) -> bool:
        """Whether the files are those that were compressed; a change is recorded and handled."""
        check = check_source_files(self._client, job, self._config.verify)
        if check.problem:
            self._log.emit("warning", reason=f"its files can't be checked: {check.problem}")
        if check.is_same:
            return True
        was = job.compressed[0].tags.get("source_hash")
        is_refused = self._config.on_change == "refuse"
        reason = f"its files are not those that were compressed: hash {check.content}, was {was}"
        jobs.write_record(
            self._client,
            job,
            "changed",
            reason=reason,
            fingerprint=check.fingerprint,
            source_hash=check.content,
            replaces=True,
        )
        self.context.report(
            "changed", reason=reason, refused=is_refused, was=was, now=check.content
        )
        if is_refused:
            self.context.outcomes["changed"] += 1
        elif current := jobs.refresh(self._client, job):
            self._run_locked(current, is_first=True)
        return False

    def _run_changed(self, job: CompressionJob) -> None:
        """Skips, checks again or compresses a version whose files have changed."""
        if self._config.on_change == "compress":
            self._run_locked(job, is_first=True)
        elif not files_changed(job):
            self._skip("skipped", JobStatus("changed", "refused: its files have changed"))
        elif job.compressed:
            self._check_done(job)
        else:
            self._run_locked(job, is_first=True)
