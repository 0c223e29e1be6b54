"""The lease of a study: which process leads it.

It is one attribute of the study, which processes exchange by compare-and-set: of two that want it,
one gets it. The owner changes it every BEAT_S seconds. Whoever has seen no change for EXPIRY_S
takes the lease over. Times are measured by the observer, so clocks need not agree.

An owner that was suspended for longer notices at its next beat, and stops. What it may have
enqueued meanwhile equals what its successor enqueues, see `generations`.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage

from adapruner.errors import UserError
from adapruner.progress import announce

BEAT_S = 5.0
"""Seconds between two signs of life, of a lead and of the worker of a trial."""

EXPIRY_S = 30.0
"""Seconds without a sign of life after which a process counts as dead."""

KEY = "lease"
RELEASED = "null"
_ATTRIBUTES = sa.table(
    "study_user_attributes", sa.column("study_id"), sa.column("key"), sa.column("value_json")
)


class Lease:
    """The lease of a study, held by this process. `former` is an owner that did not release it."""

    def __init__(self, storage: RDBStorage, study: optuna.Study) -> None:
        self._storage, self._study_id = storage, study._study_id
        self._name = study.study_name
        self.owner, self._beats = uuid4().hex, 0
        self._is_taken, self._lock = False, threading.Lock()
        self.former = self._acquire()
        self._value, self._renewed = self._content(), time.monotonic()

    def check(self) -> None:
        """Raises UserError where another process has taken the lease."""
        if time.monotonic() - self._renewed > EXPIRY_S / 2:
            self.renew()
        if self._is_taken:
            raise UserError(
                f"another run has taken over the study {self._name}, because this one was "
                f"suspended, or without its database, for {EXPIRY_S:.0f} s; let the other one end"
            )

    def renew(self) -> None:
        """Shows that the owner lives."""
        with self._lock:
            self._beats += 1
            now, value = time.monotonic(), self._content()
            if not _swap(self._storage, self._study_id, self._value, value):
                # The answer to an earlier renewal may have been lost, but not the renewal.
                value = values(self._storage).get(self._study_id, RELEASED)
                self._is_taken = self.owner not in value
            self._value, self._renewed = value, now

    def release(self) -> None:
        """Leaves the lease to the next process that wants it."""
        if not self._is_taken:
            _swap(self._storage, self._study_id, self._value, RELEASED)

    def _content(self) -> str:
        process = f"process {os.getpid()} on {socket.gethostname()}"
        return json.dumps({"owner": self.owner, "process": process, "beat": self._beats})

    def _acquire(self) -> str | None:
        while True:
            seen = values(self._storage).get(self._study_id)
            holder = json.loads(seen) if seen else None
            if holder and self._is_alive(seen, holder["process"]):
                raise UserError(
                    f"another run is searching the study {self._name} ({holder['process']}): wait "
                    "until it ends, or help it with `adapruner work`"
                )
            if _swap(self._storage, self._study_id, seen, self._content()):
                return holder["owner"] if holder else None

    def _is_alive(self, seen: str | None, process: str) -> bool:
        announce(f"search: waiting up to {EXPIRY_S:.0f} s for a sign of life of {process}")
        since = time.monotonic()
        while time.monotonic() - since < EXPIRY_S:
            time.sleep(BEAT_S / 10)
            if (value := values(self._storage).get(self._study_id)) != seen:
                return value != RELEASED
        return False


@contextmanager
def held_lease(storage: RDBStorage, study: optuna.Study) -> Iterator[Lease]:
    """The lease of the study. Raises UserError where a living process has it."""
    lease = Lease(storage, study)
    try:
        with repeated(lease.renew):
            yield lease
    finally:
        lease.release()


def values(storage: RDBStorage) -> dict[int, str]:
    """ID of a study -> its lease, which changes as long as the owner lives."""
    query = sa.select(_ATTRIBUTES.c.study_id, _ATTRIBUTES.c.value_json)
    with storage.engine.connect() as connection:
        rows = connection.execute(query.where(_ATTRIBUTES.c.key == KEY)).all()
    return {row.study_id: row.value_json for row in rows}


@contextmanager
def repeated(action: Callable[[], None]) -> Iterator[None]:
    """Calls `action` from a thread every BEAT_S seconds, until the block ends."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(BEAT_S):
            try:
                action()
            except Exception:  # the database does not answer: it may the next time
                continue

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _swap(storage: RDBStorage, study_id: int, old: str | None, new: str) -> bool:
    """Replaces the value of the lease if it is `old`; None: if it has none yet."""
    update = (
        sa.update(_ATTRIBUTES)
        .where(
            _ATTRIBUTES.c.study_id == study_id,
            _ATTRIBUTES.c.key == KEY,
            _ATTRIBUTES.c.value_json == old,
        )
        .values(value_json=new)
    )
    insert = sa.insert(_ATTRIBUTES).values(study_id=study_id, key=KEY, value_json=new)
    try:
        with storage.engine.begin() as connection:
            # Not every driver counts the rows of an insert; one that fails raises.
            count = connection.execute(insert if old is None else update).rowcount
            return old is None or count == 1
    except sa.exc.IntegrityError:
        return False
