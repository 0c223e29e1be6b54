"""A worker: joins the study of a search that runs elsewhere and evaluates its trials."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import optuna
from optuna.storages import RDBStorage

from adapruner.databases import sqlite_file
from adapruner.errors import UserError
from adapruner.models.streamed.choice import load_or_stream
from adapruner.progress import announce
from adapruner.search.parallel import lease
from adapruner.search.parallel.generations import DONE, POLL_S
from adapruner.search.parallel.publication import Publication, machine
from adapruner.search.parallel.queue import Queue, run_next
from adapruner.search.parallel.storage import open_storage
from adapruner.search.trials.task import SearchTask, TrialRunner


def work(url: str, name: str | None, inputs: Path | None, wait_s: float) -> int:
    """Evaluates trials until none is missing; returns how many this process evaluated.

    Without a `name`, the study is the first one seen that a search leads now. `inputs` is where
    the search's directories are on this machine, where not at the lead's paths. Raises UserError
    where the inputs or versions are not those of the search, and where no search leads the study
    for `wait_s` seconds.
    """
    file = sqlite_file(url)
    _wait_for(file, wait_s)
    storage = open_storage(url)
    watch = _LeadWatch(storage, wait_s)
    study, publication = _joined(storage, name, watch)
    if file is not None and publication.machine != machine():
        raise UserError(
            f"the search runs on another machine, and SQLite ('{file}') is for one: set "
            "search.storage to PostgreSQL or MySQL"
        )
    publication.check_process()
    runner = _runner(publication, study, inputs)
    announce(f"worker: joins {study.study_name}")
    return _work(Queue(study, storage, uuid4().hex), runner, watch)


def _wait_for(file: Path | None, wait_s: float) -> None:
    """Waits for the file that a search makes, which opening the database would make as well."""
    started = time.monotonic()
    while file is not None and not file.is_file():
        if time.monotonic() - started > wait_s:
            raise UserError(f"there is no database '{file}' after {wait_s:.0f} s; see --storage")
        time.sleep(POLL_S)


def _runner(publication: Publication, study: optuna.Study, inputs: Path | None) -> TrialRunner:
    task = SearchTask.read(publication.locate(inputs), publication.config)
    device = publication.config.model
    model = load_or_stream(task.inputs.checkpoint, device, "1 read for each trial")
    return task.runner(model, task.objective(model), study)


def _work(queue: Queue, runner: TrialRunner, watch: _LeadWatch) -> int:
    count = 0
    while not queue.study.user_attrs.get(DONE):
        if run_next(queue, runner):
            count += 1
        else:
            watch.wait(queue.study._study_id)
    return count


class _LeadWatch:
    """Waits for signs of life of leads, by the changes of their leases."""

    def __init__(self, storage: RDBStorage, wait_s: float) -> None:
        self._storage, self._wait_s = storage, wait_s
        self._seen, self._since = lease.values(storage), time.monotonic()
        self.alive: set[int] = set()

    def wait(self, study_id: int | None) -> None:
        """Waits a moment. Raises UserError where the study, or all, had no lead for too long."""
        time.sleep(POLL_S)
        seen, now = lease.values(self._storage), time.monotonic()
        changed = {key for key, value in seen.items() if self._seen.get(key, value) != value}
        self.alive |= {key for key in changed if seen[key] != lease.RELEASED}
        self._seen = seen
        if study_id in changed:
            self._since = now
        if now - self._since > self._wait_s:
            raise UserError(
                f"no search with search.parallel has led the study for {self._wait_s:.0f} s: start "
                "it again, it goes on where it was; check --storage and --study, or raise --wait"
            )


def _joined(
    storage: RDBStorage, name: str | None, watch: _LeadWatch
) -> tuple[optuna.Study, Publication]:
    """The study of that name, or the first with a living lead, once it is published."""
    while True:
        names = [storage.get_study_name_from_id(key) for key in sorted(watch.alive)]
        for candidate in names if name is None else [name]:
            with suppress(KeyError):
                study = optuna.load_study(study_name=candidate, storage=storage)
                if (publication := Publication.of(study)) is not None:
                    return study, publication
        watch.wait(None)
