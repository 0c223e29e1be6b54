"""Locks in the MLflow registry, for jobs that must not run twice at the same time.

Not every store of the registry offers compare-and-set, so a lock uses what all of them have:
registered models that are created and listed. To acquire the lock of a key, a process

1. lists the locks of the key, and gives up if another one is alive;
2. creates a lock of its own, `adapruner-lock-KEY-TOKEN`, with a random token;
3. lists again: if another one is alive, it deletes its own and, unless the other one is held
   already, tries again after a random wait; else it holds the lock.

Of two processes that try at once, the later one to create lists after both were created, and sees
the other: at most one passes step 3. This requires that a list shows what was created before, as
SQLite, PostgreSQL, MySQL and an MLflow server over them do; a lagging replica would break it. A
token is used once, so that deleting the lock of a dead owner by name, late or twice, never deletes
that of a living one.

The owner renews the expiry of its lock from a thread. A lock is dead when its expiry has passed or,
seen from the machine of its owner, when the process has ended (identified by boot, process
namespace, number and start time). The limits: the clocks of the machines must agree within about
half the expiry; and an owner that is suspended for longer than the expiry, or can't reach the store
for that long, goes on without noticing at once: `HeldLock.lost` reports it afterwards. The same job
may then run twice; the registration recognizes the same checkpoint and configuration and creates no
second version.
"""

from __future__ import annotations

import json
import math
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from steps.mlflow_support.tracking import MISSING

PREFIX = "adapruner-lock-"
CLAIMED, HELD = "claimed", "held"
TRIES = 8
DESCRIPTION = "A lock of `adapruner recompress`, deleted at the end of the job."


@dataclass(frozen=True)
class Lock:
    """A lock as the registry shows it; `expires` is in seconds since 1970."""

    name: str
    state: str
    owner: dict[str, Any]
    expires: float

    @property
    def key(self) -> str:
        """The key that is locked."""
        return self.name.removeprefix(PREFIX).rpartition("-")[0]

    @property
    def is_alive(self) -> bool:
        """Whether the lock has not expired and its owner may still run."""
        return time.time() < self.expires and not _has_ended(self.owner)

    @property
    def holder(self) -> str:
        """Host and process number of the owner."""
        return f"{self.owner.get('host')}:{self.owner.get('pid')}"


class HeldLock:
    """A lock of this process, renewed until it is released."""

    def __init__(self, uri: str, name: str, expiry: float, until: float) -> None:
        """`until` is the expiry that the registry shows: acquiring takes time, too."""
        self.name, self._expiry = name, expiry
        self._client = MlflowClient(uri)
        self._until = until
        self._is_deleted = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=name, daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another process may have acquired the lock since."""
        return self._is_deleted or time.time() > self._until

    def release(self) -> None:
        """Stops renewing and deletes the lock. If the store can't be reached, the lock expires."""
        self._stop.set()
        self._thread.join(timeout=30)
        with suppress(MlflowException, OSError):
            _delete(self._client, self.name)

    def _renew(self) -> None:
        while not self._stop.wait(self._expiry / 4):
            until = time.time() + self._expiry
            try:
                self._client.set_registered_model_tag(self.name, "expires", str(until))
                self._until = until
            except MlflowException as error:
                if error.error_code == MISSING:
                    self._is_deleted = True
                    return
            except Exception:  # the store does not answer: retry until the lock expires
                continue


@contextmanager
def hold(client: MlflowClient, key: str, expiry: float) -> Iterator[HeldLock | None]:
    """The lock of `key` while the body runs, or None if another process holds it.

    `key` is letters, digits and '-'; `expiry` is in seconds.
    """
    held = _acquire(client, key, expiry)
    try:
        yield held
    finally:
        if held is not None:
            held.release()


def all_locks(client: MlflowClient, key: str = "") -> list[Lock]:
    """The locks of `key` in the registry, by default of all keys; dead ones as well."""
    prefix = f"{PREFIX}{key}-" if key else PREFIX
    locks: list[Lock] = []
    token = None
    while True:
        page = client.search_registered_models(f"name LIKE '{prefix}%'", page_token=token)
        locks += [_read(model.name, model.tags) for model in page]
        token = page.token
        if not token:
            return locks


def delete_dead_locks(client: MlflowClient) -> None:
    """Deletes the locks of dead owners."""
    for lock in all_locks(client):
        if not lock.is_alive:
            _delete(client, lock.name)


def _acquire(client: MlflowClient, key: str, expiry: float) -> HeldLock | None:
    for attempt in range(TRIES):
        if any(lock.is_alive for lock in all_locks(client, key)):
            return None
        name = f"{PREFIX}{key}-{uuid4().hex}"
        until = time.time() + expiry
        tags = {"expires": str(until), "state": CLAIMED, "owner": json.dumps(_this_process())}
        with _deleted_on_error(client, name):
            client.create_registered_model(name, tags=tags, description=DESCRIPTION)
            others = [lock for lock in all_locks(client, key) if lock.name != name]
            alive = [lock for lock in others if lock.is_alive]
            if not alive and time.time() < until:
                client.set_registered_model_tag(name, "state", HELD)
                for dead in others:
                    _delete(client, dead.name)
                return HeldLock(client.tracking_uri, name, expiry, until)
        _delete(client, name)
        if any(lock.state == HELD for lock in alive):
            return None
        time.sleep(random.uniform(0, 0.1 * 2**attempt))
    return None


@contextmanager
def _deleted_on_error(client: MlflowClient, name: str) -> Iterator[None]:
    """A claim that fails halfway would keep all others away until it expires."""
    try:
        yield
    except BaseException:
        with suppress(MlflowException, OSError):
            _delete(client, name)
        raise


def _read(name: str, tags: dict[str, str]) -> Lock:
    try:
        owner, expires = json.loads(tags["owner"]), float(tags["expires"])
    except (KeyError, ValueError, RecursionError):  # of another origin, or being deleted
        owner, expires = {}, 0.0
    return Lock(
        name,
        tags.get("state", CLAIMED),
        owner if isinstance(owner, dict) else {},
        expires if math.isfinite(expires) else 0.0,
    )


def _delete(client: MlflowClient, name: str) -> None:
    try:
        client.delete_registered_model(name)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": _started(pid),
    }


@cache
def _machine() -> str | None:
    """Identifies machine, boot and process namespace; None on a system without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """The start time of a living process, in ticks since boot; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _has_ended(owner: dict[str, Any]) -> bool:
    """Whether an owner on this machine no longer runs; False for owners on other machines."""
    machine = _machine()
    if machine is None or owner.get("machine") != machine:
        return False
    pid = owner.get("pid")
    return isinstance(pid, int) and _started(pid) != owner.get("started")
