"""What a pass says while it works: JSON lines for programs, short lines and a table for people."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

STEP = re.compile(r"(?:Step|version of step) `(\w+)`(?: has (started|finished))?")
PASSING = frozenset({"started", "step", "warning", "not_notified"})
TOO_LONG = frozenset({"time", "event", "source", "version", "source_hash", "settings_hash"})


class Log:
    """Where events go. Each has `time` (UTC), `event`, and what else is known about it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, soft_wrap=True, highlight=False)
        self.for_people = stream.isatty()
        self._about: dict[str, Any] = {}
        self._last: dict[tuple[str, str], tuple[str, str]] = {}

    def emit(self, event: str, **fields: Any) -> dict[str, Any]:
        """Tell one event; what was told."""
        known = {key: value for key, value in fields.items() if value is not None}
        told = {"time": utc_now(), "event": event, **self._about, **known}
        if self.for_people:
            self._console.print(_line(told), markup=False)
        else:
            self._stream.write(json.dumps(told, default=str) + "\n")
            self._stream.flush()
        if "source" in told and "version" in told and event not in PASSING:
            events, _ = self._last.get((told["source"], told["version"]), ("", ""))
            both = f"{events}, {event}" if events else event
            self._last[told["source"], told["version"]] = (both, _rest(told))
        return told

    def table(self) -> None:
        """For people, at the end: what became of each version."""
        if not self.for_people or not self._last:
            return
        table = Table("source", "version", "outcome", "")
        for (source, version), (event, rest) in self._last.items():
            table.add_row(source, version, event, rest)
        self._console.print(table)

    @contextmanager
    def about(self, **fields: Any) -> Iterator[None]:
        """Fields of every event told inside, and of every step that ZenML tells about."""
        former, self._about = self._about, {**self._about, **fields}
        try:
            yield
        finally:
            self._about = former

    @contextmanager
    def alone_on_stdout(self) -> Iterator[None]:
        """Where programs listen, send what others print to standard error."""
        with redirect_stdout(sys.stdout if self.for_people else sys.stderr):
            yield

    @contextmanager
    def instead_of_logging(self) -> Iterator[None]:
        """Where programs listen, make events of ZenML's lines about steps, and drop the others."""
        if self.for_people:
            yield
            return
        root = logging.getLogger()
        former, root.handlers = root.handlers, [_Steps(self)]
        try:
            yield
        finally:
            root.handlers = former


class _Steps(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if (match := STEP.search(message)) and record.name.startswith("zenml"):
            self._log.emit("step", step=match[1], state=match[2] or "cached")
        elif record.levelno >= logging.WARNING and record.name.startswith(("steps", "pipelines")):
            self._log.emit("warning", reason=message)


def utc_now() -> str:
    """Now, as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def traceback_to_stderr(error: BaseException) -> None:
    """The whole story of an error that is not a user's mistake."""
    traceback.print_exception(error, file=sys.stderr)


def _line(told: dict[str, Any]) -> str:
    of = " ".join(str(told[key]) for key in ("source", "version") if key in told)
    return f"{told['time'][11:19]}Z  {of + ': ' if of else ''}{told['event']}  {_rest(told)}"


def _rest(told: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in told.items() if key not in TOO_LONG)
