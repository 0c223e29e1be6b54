"""The work of one pass, version by version; one that fails is noted and never stops the others."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipelines.recompress import changes, lineage, lock, promotion
from pipelines import local_run as run
from pipelines.log import Log, traceback_to_stderr
from pipelines.errors import explain, is_full
from pipelines.recompress.lineage import TO_DO, Work
from pipelines.recompress.notify import notify
from pipelines.recompress.config import Plan
from steps.mlflow_support import registered_checkpoints, tracking


class Pass:
    """What one pass knows; `outcomes` counts what became of the versions."""

    def __init__(self, plan: Plan, home: Path, log: Log, retry_failed: bool) -> None:
        self._plan, self._config, self._home, self._log = plan, plan.config, home, log
        self._retry_failed = retry_failed
        self._client: MlflowClient
        self._prepared = False
        self.outcomes: Counter[str] = Counter()

    def work(self) -> None:
        """Do everything, what arrives meanwhile included. Raises UnreachableError."""
        self._client = tracking.connect_to(tracking.configured_uri(self._home))
        lock.sweep(self._client)
        seen: set[tuple[str, str, str]] = set()
        while True:
            found = lineage.find(self._client, self._plan)
            left = [work for work in found if work.id not in seen]
            if not seen:
                self._tell_empty(found)
            if not left:
                return
            # What has been tried less often comes first: a version that kills its process each
            # time can't keep the others from being compressed.
            for work in sorted(left, key=_attempts):
                seen.add(work.id)
                with self._log.about(source=work.id[0], version=work.id[1]):
                    self._alone(work)

    def store_is_away(self, error: BaseException) -> bool:
        """Whether an error is, or came with, a registry that does not answer."""
        return tracking.is_connection_failure(error) or not tracking.is_available(self._client)

    def _alone(self, work: Work) -> None:
        """One version; what is wrong with it alone is told and does not reach the others."""
        try:
            self._one(work)
        except Exception as error:
            if is_full(error) or self.store_is_away(error):
                raise
            self._tell("failed", reason=self._reason(error))
            self.outcomes["failed"] += 1

    def _tell_empty(self, found: list[Work]) -> None:
        sources = {work.entry.source for work in found}
        for entry in self._config.models:
            if entry.source not in sources:
                reason = "the registry has no such version of it"
                self._log.emit("no_versions", source=entry.source, reason=reason)

    def _one(self, work: Work) -> None:
        standing = self._stand(work)
        if standing.word in TO_DO:
            self._with_lock(work)
        elif standing.word == "done":
            self._done_before(work)
        elif standing.word in ("failed", "waiting") and changes.files_changed(work):
            self._log.emit("changed", reason="its files changed since it failed; tried as it is now")
            self._with_lock(work, afresh=True)
        elif standing.word == "changed":
            self._changed_before(work)
        else:
            word = "held" if standing.word == "running" else "skipped"
            self._skip(word, standing)

    def _stand(self, work: Work) -> lineage.Standing:
        standing = lineage.stand(work, self._config.retry, datetime.now(UTC))
        if self._retry_failed and standing.word in ("failed", "waiting"):
            return lineage.Standing("due", standing.reason)
        return standing

    def _skip(self, word: str, standing: lineage.Standing) -> None:
        reasons = {"failed": "given up: ", "waiting": "waits to be tried again: "}
        reason = f"{reasons.get(standing.word, '')}{standing.reason}"
        self._log.emit(word, why=standing.word, reason=reason, until=standing.until)
        self.outcomes[word] += 1

    def _with_lock(self, work: Work, afresh: bool = False) -> None:
        with lock.hold(self._client, work.key, self._config.lock_expiry) as held:
            if held is None:
                self._skip("held", lineage.Standing("running", "another owner works on it"))
                return
            # Between listing and locking another may have finished it, or deleted the version.
            now = lineage.look_again(self._client, work)
            if now is None:
                self._gone()
            elif self._stand(now).word in TO_DO or (afresh and now.record == work.record):
                self._attempt(now, afresh or self._given_up(now))
                if held.lost:
                    reason = "the lock expired meanwhile; another may have done the same"
                    self._log.emit("lock_lost", reason=reason)
            elif self._stand(now).word == "done":
                self._done_before(now)
            else:
                self._skip("skipped", self._stand(now))

    def _given_up(self, work: Work) -> bool:
        return _attempts(work) >= self._config.retry.attempts

    def _attempt(self, work: Work, afresh: bool) -> None:
        attempts = 1 if afresh else _attempts(work) + 1
        known: dict[str, Any] = {"attempts": attempts, "replaces": bool(work.made)}
        try:
            known["fingerprint"] = registered_checkpoints.fingerprint(work.version)
            owner = f"{socket.gethostname()}:{os.getpid()}"
            lineage.write(self._client, work, "running", owner=owner, **known)
            self._log.emit("started", target=work.entry.target, attempt=attempts)
            made = self._compress(work)
        except Exception as error:
            self._after_error(work, known, error)
            return
        except BaseException:
            self._put_back(work, known, "it was stopped")
            raise
        self._finish(work, made, known["fingerprint"])

    def _compress(self, work: Work) -> ModelVersion:
        from steps.zenml_support import workspace
        from steps.publishing.results import directory_of

        values, config = self._plan.run_of(work.entry, str(work.version.version))
        if not self._prepared:
            run.prepare(self._home)
            self._prepared = True
        try:
            with self._log.instead_of_logging():  # ZenML's handlers are there from `prepare` on
                run.execute("compress", values)
        finally:
            workspace.remove_stage_directories()
        registered = json.loads((directory_of(config) / "model_version.json").read_text())
        return self._client.get_model_version(registered["name"], registered["version"])

    def _finish(self, work: Work, made: ModelVersion, fingerprint: str) -> None:
        try:
            lineage.finished(self._client, work, made, fingerprint)
        except Exception:
            if lineage.look_again(self._client, work) is not None:
                raise
            self._log.emit("source_deleted", reason="deleted meanwhile; its compressed one stays")
        self._log.emit(
            "compressed", target=f"{made.name}/{made.version}",
            source_hash=made.tags["source_hash"], settings_hash=work.settings,
            ratio=made.tags.get("ratio_achieved"),
        )  # fmt: skip
        self.outcomes["compressed"] += 1
        self._promote(made)

    def _after_error(self, work: Work, known: dict[str, Any], error: Exception) -> None:
        """Tell a version's failure, which is noted, from that of what all versions need."""
        if is_full(error) or self.store_is_away(error):
            self._put_back(work, known, explain(error) or "the registry did not answer")
            raise error
        if lineage.look_again(self._client, work) is None:
            self._gone()
            return
        self._failed(work, known, self._reason(error))

    def _failed(self, work: Work, known: dict[str, Any], reason: str) -> None:
        retry = self._config.retry
        last = known["attempts"] >= retry.attempts
        delay = retry.backoff * 2 ** (known["attempts"] - 1)
        until = None if last else datetime.now(UTC) + timedelta(seconds=delay)
        lineage.write(self._client, work, "failed", reason=reason, until=until, **known)
        attempt = f"{known['attempts']} of {retry.attempts}"
        word = "gave_up" if last else "failed"
        self._tell(word, reason=reason, attempt=attempt, until=until and until.isoformat())
        self.outcomes[word] += 1

    def _reason(self, error: Exception) -> str:
        reason = explain(error)
        if reason is None:
            traceback_to_stderr(error)
            reason = tracking.summarize_error(error, with_type=True)
        return reason

    def _put_back(self, work: Work, known: dict[str, Any], reason: str) -> None:
        """As if this attempt had not been: what stopped it was not the version's fault.

        Where even this can't be noted, the next pass finds the work's owner dead.
        """
        known = {**known, "attempts": known["attempts"] - 1}
        with suppress(Exception):
            lineage.write(self._client, work, "put_back", reason=reason, **known)
            self._log.emit("put_back", reason=reason)

    def _gone(self) -> None:
        self._log.emit("skipped", why="deleted", reason="the source version was deleted meanwhile")
        self.outcomes["skipped"] += 1

    def _done_before(self, work: Work) -> None:
        """Nothing to do, unless its files are no longer what was compressed."""
        if not self._same_content(work):
            return
        made = work.made[0]
        self._log.emit("skipped", why="done", reason=f"compressed as {made.name}/{made.version}")
        self.outcomes["skipped"] += 1
        if promotion.TAG not in made.tags:
            self._promote(made)

    def _same_content(self, work: Work) -> bool:
        """Whether the version still holds what was compressed; else it is told and refused."""
        seen = changes.compare(self._client, work, self._config.verify)
        if seen.problem:
            self._log.emit("warning", reason=f"can't be compared any more: {seen.problem}")
        if seen.same:
            return True
        was, refused = work.made[0].tags.get("source_hash"), self._config.on_change == "refuse"
        reason = f"its files are not those that were compressed: hash {seen.content}, was {was}"
        known = {"fingerprint": seen.fingerprint, "source_hash": seen.content, "replaces": True}
        lineage.write(self._client, work, "changed", reason=reason, **known)
        self._tell("changed", reason=reason, refused=refused, was=was, now=seen.content)
        if refused:
            self.outcomes["changed"] += 1
        elif now := lineage.look_again(self._client, work):
            self._with_lock(now, afresh=True)
        return False

    def _changed_before(self, work: Work) -> None:
        """A version that was found changed: left alone, tried as it is, or looked at once more."""
        if self._config.on_change == "compress":
            self._with_lock(work, afresh=True)
        elif not changes.files_changed(work):
            self._skip("skipped", lineage.Standing("changed", "refused: it changed"))
        elif work.made:
            self._done_before(work)
        else:
            self._with_lock(work, afresh=True)

    def _promote(self, made: ModelVersion) -> None:
        decision = promotion.decide(self._client, self._config.promotion, made)
        if decision is None:
            return
        target = f"{made.name}/{made.version}"
        told = {key: value for key, value in decision.items() if key != "at"}
        word = "promoted" if decision["decision"] == promotion.CHAMPION else "decided"
        self._tell(word, target=target, **told)

    def _tell(self, event: str, **fields: Any) -> None:
        told = self._log.emit(event, **fields)
        problem = notify(self._config.notify, told)
        if problem is not None:
            self._log.emit("not_notified", reason=problem)


def _attempts(work: Work) -> int:
    return work.record.attempts if work.record else 0
