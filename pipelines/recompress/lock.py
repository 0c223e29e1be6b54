"""A lock in the MLflow registry, for work that must not be done by two at once.

The registry has no compare-and-set that every store offers, so a lock is made of what all of them
have: registered models that are created and listed. Whoever wants the lock

1. lists the locks of this key, and gives up where another's is alive;
2. creates one of its own, `adapruner-lock-KEY-TOKEN`, the token drawn at random;
3. lists again: where another's is alive it takes its own back and, unless that one is held already,
   tries again after a random wait; else it holds the lock.

Of two that try at once, the later to create lists after both were created, and so sees the other:
at most one comes through 3. This asks of the store only that a list shows what was created before,
as SQLite, PostgreSQL, MySQL and an MLflow server over them do; a list answered by a lagging replica
would break it. A token is used once, so that deleting a dead owner's lock by name, late or twice,
never hits a living one.

An owner renews its lock's expiry from a thread. A lock is dead when its expiry has passed or, seen
from the machine it was taken on, when its process is gone (told by boot, process namespace, number
and start time of the process). The limits: clocks of the machines have to agree within about half
the expiry; and an owner that was suspended for longer than the expiry goes on without noticing at
once, as does one that could not reach the store for that long: `Held.lost` tells it afterwards.
Then the same work may be done twice; the registration finds the same checkpoint and configuration
and makes no second version.
"""

from __future__ import annotations

import json
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

PREFIX = "adapruner-lock-"
CLAIMED, HELD = "claimed", "held"
TRIES = 8
NOTE = "A lock of `adapruner recompress`. It goes when the work is done."


@dataclass(frozen=True)
class Lock:
    """A lock as the registry shows it; `expires` in seconds since the epoch."""

    name: str
    state: str
    owner: dict[str, Any]
    expires: float

    @property
    def key(self) -> str:
        return self.name.removeprefix(PREFIX).rpartition("-")[0]

    @property
    def alive(self) -> bool:
        return time.time() < self.expires and not _process_gone(self.owner)

    @property
    def holder(self) -> str:
        """Host and process number of the owner."""
        return f"{self.owner.get('host')}:{self.owner.get('pid')}"


class Held:
    """A lock of this process, renewed until it is given back."""

    def __init__(self, uri: str, name: str, expiry: float) -> None:
        self.name, self._expiry = name, expiry
        self._client = MlflowClient(uri)
        self._until = time.time() + expiry
        self._gone = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=name, daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another may have taken the lock over since."""
        return self._gone or time.time() > self._until

    def give_back(self) -> None:
        """Stop renewing and delete the lock. A store that can't be reached lets it expire."""
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
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    self._gone = True
                    return
            except Exception:  # the store is away; the lock expires unless it comes back
                continue


@contextmanager
def hold(client: MlflowClient, key: str, expiry: float) -> Iterator[Held | None]:
    """The lock of `key` for as long as the body runs, or None where another holds it.

    `key` is letters, digits and '-'; `expiry` is in seconds.
    """
    held = _take(client, key, expiry)
    try:
        yield held
    finally:
        if held is not None:
            held.give_back()


def all_locks(client: MlflowClient, key: str = "") -> list[Lock]:
    """The locks of `key` in the registry, or all of them; dead ones as well."""
    prefix = f"{PREFIX}{key}-" if key else PREFIX
    found, token = [], None
    while True:
        page = client.search_registered_models(f"name LIKE '{prefix}%'", page_token=token)
        found += [_read(model.name, model.tags) for model in page]
        token = page.token
        if not token:
            return found


def sweep(client: MlflowClient) -> None:
    """Delete the locks of dead owners."""
    for lock in all_locks(client):
        if not lock.alive:
            _delete(client, lock.name)


def _take(client: MlflowClient, key: str, expiry: float) -> Held | None:
    for attempt in range(TRIES):
        if any(lock.alive for lock in all_locks(client, key)):
            return None
        name = f"{PREFIX}{key}-{uuid4().hex}"
        until = time.time() + expiry
        tags = {"expires": str(until), "state": CLAIMED, "owner": json.dumps(_myself())}
        client.create_registered_model(name, tags=tags, description=NOTE)
        others = [lock for lock in all_locks(client, key) if lock.name != name]
        alive = [lock for lock in others if lock.alive]
        if not alive and time.time() < until:
            client.set_registered_model_tag(name, "state", HELD)
            for dead in others:
                _delete(client, dead.name)
            return Held(client.tracking_uri, name, expiry)
        _delete(client, name)
        if any(lock.state == HELD for lock in alive):
            return None
        time.sleep(random.uniform(0, 0.1 * 2**attempt))
    return None


def _read(name: str, tags: dict[str, str]) -> Lock:
    try:
        owner, expires = json.loads(tags["owner"]), float(tags["expires"])
    except (KeyError, ValueError):  # not one of ours, or being deleted
        owner, expires = {}, 0.0
    return Lock(name, tags.get("state", CLAIMED), owner, expires)


def _delete(client: MlflowClient, name: str) -> None:
    try:
        client.delete_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": _started(pid),
    }


@cache
def _machine() -> str | None:
    """What tells this machine, boot and process namespace apart; None where /proc is not there."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a living process started, in ticks since boot; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _process_gone(owner: dict[str, Any]) -> bool:
    """Whether an owner on this machine no longer runs; of other machines nobody knows."""
    machine = _machine()
    if machine is None or owner.get("machine") != machine:
        return False
    return bool(_started(int(owner["pid"])) != owner["started"])
