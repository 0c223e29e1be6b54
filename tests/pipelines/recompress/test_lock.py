from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.recompress import lock

ROOT = Path(__file__).parents[2]
# Each enters as often as it can and says when it went in and out.
CONTENDER = """
import sys, time
from mlflow import MlflowClient
from pipelines import lock
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
from pipelines import lock
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
def test_never_two_are_inside_and_all_get_in(client: MlflowClient, uri: str) -> None:
    contenders = [process(CONTENDER, uri) for _ in range(3)]
    lines = [line for each in contenders for line in each.communicate(timeout=240)[0].splitlines()]
    spans = sorted(tuple(map(float, line.split())) for line in lines)
    assert len(spans) == 9
    for (_, out), (into, _) in itertools.pairwise(spans):
        assert out <= into
    assert not lock.all_locks(client)


@pytest.mark.slow
def test_a_dead_owner_on_this_machine_is_taken_over_at_once(client: MlflowClient, uri: str) -> None:
    owner = process(HOLDER, uri)
    name = owner.stdout.readline().strip()
    (seen,) = lock.all_locks(client, "k")
    assert (seen.name, seen.alive, seen.state) == (name, True, lock.HELD)
    with lock.hold(client, "k", 600) as held:
        assert held is None
    owner.kill()
    owner.wait()
    with lock.hold(client, "k", 600) as held:
        assert held is not None
        assert [left.name for left in lock.all_locks(client, "k")] == [held.name]


def left_by(client: MlflowClient, expires: float, **owner: object) -> str:
    name = f"{lock.PREFIX}k-0"
    about = json.dumps({**lock._myself(), **owner})
    tags = {"expires": str(expires), "state": lock.HELD, "owner": about}
    client.create_registered_model(name, tags=tags)
    return name


@pytest.mark.parametrize(
    ("owner", "seconds", "taken"),
    [
        ({"machine": "another"}, 60, False),
        ({"machine": "another"}, -1, True),
        ({}, 60, False),
        ({"started": "1"}, 60, True),  # the process number was given to another process since
        ({"pid": 2**22 + 1}, 60, True),
    ],
)
def test_who_counts_as_dead(
    client: MlflowClient, owner: dict[str, object], seconds: float, taken: bool
) -> None:
    name = left_by(client, time.time() + seconds, **owner)
    with lock.hold(client, "k", 60) as held:
        assert (held is not None) is taken
    assert [left.name for left in lock.all_locks(client)] == ([] if taken else [name])


def test_it_is_renewed_and_a_lost_one_is_told(client: MlflowClient) -> None:
    with lock.hold(client, "k", 1) as held:
        (before,) = lock.all_locks(client, "k")
        while lock.all_locks(client, "k")[0].expires <= before.expires:
            time.sleep(0.05)
        assert not held.lost
        client.delete_registered_model(held.name)
        while not held.lost:
            time.sleep(0.05)


def test_sweeping_leaves_the_living(client: MlflowClient) -> None:
    left_by(client, 0)
    with lock.hold(client, "other", 60) as held:
        lock.sweep(client)
        assert [left.name for left in lock.all_locks(client)] == [held.name]
        assert [left.key for left in lock.all_locks(client)] == ["other"]
