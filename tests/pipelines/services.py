"""Long-running processes of the tests, and small scripts that stand where a pass would."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class Service:
    """A started process whose JSON lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def event(self, name: str) -> dict[str, Any]:
        """The next line with this event; fails when there is none in time or at all."""
        while (line := self._queue.get(timeout=PATIENCE)) is not None:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == name:
                return self.lines[-1]
        raise AssertionError(f"ended without {name!r}: {self.lines}")

    def end(self, number: int) -> int:
        """Send a signal; the exit code, once all lines are read."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        while (line := self._queue.get(timeout=PATIENCE)) is not None:
            self.lines.append(json.loads(line))
        return code

    def count(self, name: str) -> int:
        return sum(line["event"] == name for line in self.lines)


@contextmanager
def started(
    code: str, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """A Python program as a process of its own, killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Service(process)
    finally:
        process.kill()
        process.wait()
