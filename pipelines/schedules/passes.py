"""One pass of `adapruner recompress` at a time, each a process of its own.

A pass that crashes, leaks or is killed takes nothing else down. Watch and listen share this.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

GRACE_SECONDS = 30.0
OUTCOMES = {
    0: "done",
    1: "crashed",
    2: "bad input",
    4: "some versions failed",
    5: "busy or registry unreachable",
}
# A pass that ends so has looked after itself: what failed in it has a backoff of its own.
ORDERLY = (0, 4, 5)


def recompress_command(path: Path, home: Path) -> list[str]:
    """The command of one pass, as arguments: no shell reads them."""
    program = [sys.executable, "-m", "pipelines.cli", "recompress"]
    return [*program, "-c", str(path.absolute()), "--home", str(home.absolute())]


def log(event: str, **fields: Any) -> None:
    """One JSON line on standard output, with the time in UTC."""
    print(json.dumps({"time": moment(datetime.now(UTC)), "event": event, **fields}), flush=True)


def moment(when: datetime) -> str:
    """`when` in UTC, to the second, as in 2030-01-31T06:00:00Z."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Passes:
    """Starts passes and stops the one that is running. Safe to use from several threads."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] = os.environ,
        grace: float = GRACE_SECONDS,
    ) -> None:
        """`grace` is how many seconds a pass has to end after SIGTERM."""
        self.command = list(command)
        self.environment = dict(environment)
        self.grace = grace
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, reason: str) -> int | None:
        """One pass from start to end; its exit code, or None when passes are over."""
        with self._lock:
            if self.stopped.is_set():
                return None
            # A process group of its own: workers of the pass are stopped with it, and Ctrl-C in a
            # terminal reaches it through `stop` alone.
            self._child = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        log("pass started", reason=reason, pid=self._child.pid)
        started = time.monotonic()
        code = self._child.wait()
        self.kill()  # workers that outlive the pass hold what the next one needs
        seconds = round(time.monotonic() - started, 1)
        log("pass ended", reason=reason, exit_code=code, outcome=outcome(code), seconds=seconds)
        return code

    def stop(self) -> None:
        """No further pass; the running one is asked to end, and killed where it does not.

        Returns when it is gone.
        """
        with self._lock:
            self.stopped.set()
        if self._child is None or self._child.poll() is not None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(self.grace)
            return
        log("pass killed", pid=self._child.pid, after_seconds=self.grace)
        self.kill()
        self._child.wait()

    def kill(self) -> None:
        """End the running pass at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)


def outcome(code: int) -> str:
    """What an exit code of a pass says; a negative one is the signal that ended it."""
    if code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return OUTCOMES.get(code, "unknown")
