"""Events of a service or a pass: JSON lines for programs, short lines and a table on a terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

STEP = re.compile(r"(?:Step|version of step) `(\w+)`(?: has (started|finished))?")
NO_OUTCOME = frozenset({"started", "step", "warning", "not_notified"})
"""Events about a model version that say nothing about its outcome."""
NOT_IN_LINES = frozenset({"time", "event", "source", "version", "source_hash", "settings_hash"})


class EventLog:
    """Writes events to a stream. An event has `time` (UTC), `event`, then its other fields.

    Several threads may emit events; `context` is for a log that one thread uses.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a signal handler may emit within an emit
        self._console = Console(file=stream, soft_wrap=True, highlight=False)
        self.is_terminal = stream.isatty()
        self._context: dict[str, Any] = {}
        self._outcomes: dict[tuple[str, str], tuple[str, str]] = {}

    def emit(self, event: str, **fields: Any) -> dict[str, Any]:
        """Writes one event without its empty fields; returns what was written."""
        values = {key: _plain(value) for key, value in fields.items() if value is not None}
        with self._lock:
            content = {"time": utc_now(), "event": event, **self._context, **values}
            if self.is_terminal:
                self._console.print(_line(content), markup=False)
            else:
                self._stream.write(json.dumps(content, default=str) + "\n")
                self._stream.flush()
            if "source" in content and "version" in content and event not in NO_OUTCOME:
                key = content["source"], content["version"]
                earlier, _ = self._outcomes.get(key, ("", ""))
                events = f"{earlier}, {event}" if earlier else event
                self._outcomes[key] = (events, _details(content))
            return content

    def print_summary(self) -> None:
        """On a terminal: the outcome of each model version as a table."""
        if not self.is_terminal or not self._outcomes:
            return
        table = Table("source", "version", "outcome", "")
        for (source, version), (events, details) in self._outcomes.items():
            table.add_row(source, version, events, details)
        self._console.print(table)

    @contextmanager
    def context(self, **fields: Any) -> Iterator[None]:
        """Adds fields to every event that is written in the body."""
        former, self._context = self._context, {**self._context, **fields}
        try:
            yield
        finally:
            self._context = former

    @contextmanager
    def redirect_other_output(self) -> Iterator[None]:
        """Outside a terminal, standard output of everything else goes to standard error."""
        with redirect_stdout(sys.stdout if self.is_terminal else sys.stderr):
            yield

    @contextmanager
    def capture_logging(self) -> Iterator[None]:
        """Outside a terminal, ZenML's messages about steps become events; others are dropped.

        Warnings of this project become events as well.
        """
        if self.is_terminal:
            yield
            return
        root = logging.getLogger()
        former, root.handlers = root.handlers, [_EventHandler(self)]
        try:
            yield
        finally:
            root.handlers = former


class _EventHandler(logging.Handler):
    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if (match := STEP.search(message)) and record.name.startswith("zenml"):
            self._log.emit("step", step=match[1], state=match[2] or "cached")
        elif record.levelno >= logging.WARNING and record.name.startswith(("steps", "pipelines")):
            self._log.emit("warning", reason=message)


def utc_now() -> str:
    """The present time, as by `utc_text`."""
    return utc_text(datetime.now(UTC))


def utc_text(moment: datetime) -> str:
    """A time with a time zone as ISO 8601 in UTC, such as 2030-01-31T06:00:00.000Z."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    return utc_text(value) if isinstance(value, datetime) else value


def _line(content: dict[str, Any]) -> str:
    subject = " ".join(str(content[key]) for key in ("source", "version") if key in content)
    prefix = f"{subject}: " if subject else ""
    return f"{content['time'][11:19]}Z  {prefix}{content['event']}  {_details(content)}"


def _details(content: dict[str, Any]) -> str:
    shown = {key: value for key, value in content.items() if key not in NOT_IN_LINES}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
