from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.recompress import lock

ROOT = Path(__file__).parents[3]
CONTENDER = """
import sys, time
from mlflow import MlflowClient
from pipelines.recompress import lock
client = MlflowClient(sys.argv[1])
entered = 0
while entered < 3:
    with lock.hold(client, "k", 30) as held:
        if held is not None:
            entered += 1
            started = time.monotonic()
            time.sleep(0.05)
            print(started, time.monotonic(), flush=True)
    time.sleep(0.01)
"""
HOLDER = """
import sys, time
from mlflow import MlflowClient
from pipelines.recompress import lock
with lock.hold(MlflowClient(sys.argv[1]), "k", 600) as held:
    print(held.name, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('locks') / 'mlflow.db'}"
    MlflowClient(uri).search_registered_models()
    return uri


@pytest.fixture
def client(uri: str) -> Iterator[MlflowClient]:
    client = MlflowClient(uri)
    yield client
    for left in lock.all_locks(client):
        client.delete_registered_model(left.name)


def process(script: str, uri: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, uri], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.slow
def test_the_lock_is_exclusive_and_every_contender_gets_it(client: MlflowClient, uri: str) -> None:
    contenders = [process(CONTENDER, uri) for _ in range(3)]
    lines = [line for each in contenders for line in each.communicate(timeout=240)[0].splitlines()]
    spans = sorted(tuple(map(float, line.split())) for line in lines)
    assert len(spans) == 9
    for (_, out), (into, _) in itertools.pairwise(spans):
        assert out <= into
    assert not lock.all_locks(client)


@pytest.mark.slow
def test_the_lock_of_a_dead_owner_on_this_machine_is_free_at_once(
    client: MlflowClient, uri: str
) -> None:
    owner = process(HOLDER, uri)
    name = owner.stdout.readline().strip()
    (seen,) = lock.all_locks(client, "k")
    assert (seen.name, seen.is_alive, seen.state) == (name, True, lock.HELD)
    with lock.hold(client, "k", 600) as held:
        assert held is None
    owner.kill()
    owner.wait()
    with lock.hold(client, "k", 600) as held:
        assert held is not None
        assert [left.name for left in lock.all_locks(client, "k")] == [held.name]


def create_lock(client: MlflowClient, expires: float, **owner: object) -> str:
    name = f"{lock.PREFIX}k-0"
    about = json.dumps({**lock._this_process(), **owner})
    tags = {"expires": str(expires), "state": lock.HELD, "owner": about}
    client.create_registered_model(name, tags=tags)
    return name


@pytest.mark.parametrize(
    ("owner", "seconds", "is_free"),
    [
        ({"machine": "another"}, 60, False),
        ({"machine": "another"}, -1, True),
        ({}, 60, False),
        ({"started": "1"}, 60, True),  # the process number belongs to another process since
        ({"pid": 2**22 + 1}, 60, True),
    ],
)
def test_a_lock_is_free_once_it_expired_or_its_process_ended(
    client: MlflowClient, owner: dict[str, object], seconds: float, is_free: bool
) -> None:
    name = create_lock(client, time.time() + seconds, **owner)
    with lock.hold(client, "k", 60) as held:
        assert (held is not None) is is_free
    assert [left.name for left in lock.all_locks(client)] == ([] if is_free else [name])


def test_a_held_lock_is_renewed_and_its_loss_is_reported(client: MlflowClient) -> None:
    with lock.hold(client, "k", 1) as held:
        (before,) = lock.all_locks(client, "k")
        while lock.all_locks(client, "k")[0].expires <= before.expires:
            time.sleep(0.05)
        assert not held.lost
        client.delete_registered_model(held.name)
        while not held.lost:
            time.sleep(0.05)


def test_only_dead_locks_are_deleted(client: MlflowClient) -> None:
    create_lock(client, 0)
    with lock.hold(client, "other", 60) as held:
        lock.delete_dead_locks(client)
        assert [left.name for left in lock.all_locks(client)] == [held.name]
        assert [left.key for left in lock.all_locks(client)] == ["other"]


class _Slow(MlflowClient):
    """A registry whose second listing takes `seconds`."""

    seconds = 1.5

    def search_registered_models(self, *args: Any, **kwargs: Any) -> Any:
        self.listings = getattr(self, "listings", 0) + 1
        if self.listings == 2:
            time.sleep(self.seconds)
        return super().search_registered_models(*args, **kwargs)


def test_a_lock_that_took_long_to_acquire_is_lost_when_others_see_it_expire(
    client: MlflowClient, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The store does not answer the owner any more, so that nothing renews its lock.
    monkeypatch.setattr(lock.HeldLock, "_renew", lambda self: None)
    with lock.hold(_Slow(uri), "k", 2) as first:
        (seen,) = lock.all_locks(client, "k")
        while time.time() < seen.expires:
            assert not first.lost
            time.sleep(0.01)
        with lock.hold(client, "k", 2) as second:
            assert second is not None
            assert first.lost


class _Failing(MlflowClient):
    """A registry that fails between the claim of a lock and its hold."""

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        raise MlflowException("the database is gone")


def test_a_claim_that_fails_keeps_no_one_away(client: MlflowClient, uri: str) -> None:
    with pytest.raises(MlflowException, match="is gone"), lock.hold(_Failing(uri), "k", 600):
        pass
    with lock.hold(client, "k", 60) as held:
        assert held is not None


@pytest.mark.parametrize(
    ("owner", "expires"),
    [
        ("[1, 2]", "inf"),
        ('"text"', "nan"),
        ("null", "-inf"),
        ('{"machine": MACHINE, "pid": "many"}', "1e3"),
        ('{"machine": MACHINE}', "1e3"),
        ("[" * 100_000, "1e3"),
    ],
)
def test_a_lock_with_unusable_tags_stops_no_pass(
    client: MlflowClient, owner: str, expires: str
) -> None:
    text = owner.replace("MACHINE", json.dumps(lock._machine()))[:5000]
    tags = {"expires": expires, "state": lock.HELD, "owner": text}
    client.create_registered_model(f"{lock.PREFIX}k-0", tags=tags)
    with lock.hold(client, "k", 60) as held:
        assert held is not None
    lock.delete_dead_locks(client)
