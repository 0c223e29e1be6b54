"""Runs on the stacks of a cluster: how they ended, what ran in pods, and what they moved."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.place import IMAGE_FOLDER, Place, wait_for
from tests.servers import postgres_programs

SECONDS = 7200
"""Of one run, on a machine that is busy with other things as well."""
needs_cluster = [
    pytest.mark.slow,
    pytest.mark.skipif(IMAGE_FOLDER is None, reason="takes minutes: run `make verify-cluster`"),
    pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="pods need mount namespaces, which root may make"),
]
"""The marks of tests in this folder."""


@dataclass(frozen=True)
class Run:
    """A run: exit code, output, the steps that pods ran, and the requests to the store."""

    code: int
    output: str
    steps: list[str]
    requests: list[dict[str, Any]]

    def sent(self, step: str) -> int:
        """Bytes that the store sent to a step."""
        return sum(request["sent"] for request in self.requests if request["step"] == step)

    def reads(self, minimum: int) -> Counter[tuple[str, str]]:
        """Step and path -> how often the step read this object of at least `minimum` bytes."""
        return Counter(
            (request["step"], request["path"])
            for request in self.requests
            if request["method"] == "GET" and request["sent"] >= minimum
        )


def finished(place: Place, command: str, stack: str, steps: int, *arguments: str) -> Run:
    """`adapruner COMMAND --stack STACK`, which is expected to start pods for that many `steps`."""
    pods, requests, started = len(place.ended_pods()), len(place.requests()), time.monotonic()
    with place.adapruner(command, stack, *arguments) as process:
        output, _ = process.communicate(timeout=SECONDS)
    seconds = time.monotonic() - started
    if process.returncode == 0:  # the last pod ends after the run
        wait_for(lambda: len(place.ended_pods()) >= pods + steps, 60)
    ended = [pod["step"] for pod in place.ended_pods()[pods:]]
    run = Run(process.returncode, output, ended, place.requests()[requests:])
    print(f"{command}, {stack}: exit {run.code}, {seconds:.0f} s, {len(ended)} pods\n{output}")
    _print_moved(run, place)
    return run


def _print_moved(run: Run, place: Place) -> None:
    """Prints what each step received from the store and sent to it."""
    print(f"{'step':28}{'from the store':>16}{'to the store':>16}  (weights: {place.weights:,})")
    rows: dict[str, list[int]] = {}
    for request in run.requests:
        row = rows.setdefault(request["step"], [0, 0])
        row[0] += request["sent"]
        row[1] += request["received"]
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    for step, (sent, received) in rows.items():
        print(f"{step:28}{sent:16,}{received:16,}")
