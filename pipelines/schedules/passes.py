"""Passes of `adapruner recompress`, one at a time, each in a process of its own.

A pass that crashes, leaks memory or is killed affects nothing else. `watch` and the webhook service
use this.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.log import EventLog

GRACE_SECONDS = 30.0
OUTCOMES = {
    0: "done",
    1: "crashed",
    2: "bad input",
    4: "some versions failed",
    5: "busy or registry unreachable",
}
ORDERLY_CODES = (0, 4, 5)
"""Exit codes of a pass that needs no backoff: a version that failed in it has its own."""


def recompress_command(path: Path, home: Path) -> list[str]:
    """The command of one pass as arguments, so that no shell interprets them."""
    program = [sys.executable, "-m", "pipelines.cli", "recompress"]
    return [*program, "-c", str(path.absolute()), "--home", str(home.absolute())]


class Passes:
    """Starts passes and stops the running one. Several threads may use it."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] = os.environ,
        grace: float = GRACE_SECONDS,
        log: EventLog | None = None,
    ) -> None:
        """`grace`: seconds that a pass has to end after SIGTERM. `log`: default standard output."""
        self.command = list(command)
        self.environment = dict(environment)
        self.grace = grace
        self.log = log or EventLog(sys.stdout)
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, reason: str) -> int | None:
        """Runs one pass; returns its exit code, or None after `stop`."""
        with self._lock:
            if self.stopped.is_set():
                return None
            # A process group of its own: `stop` reaches the workers of the pass as well, and
            # Ctrl-C in a terminal reaches the pass through `stop` alone.
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.log.emit("pass_started", reason=reason, pid=self._process.pid)
        started = time.monotonic()
        code = self._process.wait()
        self.kill()  # workers that outlive the pass hold what the next one needs
        self.log.emit(
            "pass_ended",
            reason=reason,
            exit_code=code,
            outcome=outcome(code),
            seconds=round(time.monotonic() - started, 1),
        )
        return code

    def stop(self) -> None:
        """Starts no further pass and ends the running one; returns when it has ended.

        It gets SIGTERM, and SIGKILL after `grace` seconds.
        """
        with self._lock:
            self.stopped.set()
        if self._process is None or self._process.poll() is not None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self.grace)
            return
        self.log.emit("pass_killed", pid=self._process.pid, after_seconds=self.grace)
        self.kill()
        self._process.wait()

    def kill(self) -> None:
        """Ends the running pass at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def outcome(code: int) -> str:
    """The meaning of an exit code of a pass; a negative one is the signal that ended it."""
    if code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return OUTCOMES.get(code, "unknown")
