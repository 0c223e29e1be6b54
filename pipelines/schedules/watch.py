"""Repeated passes in the foreground, for containers and terminals."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

from pipelines.schedules.passes import ORDERLY_CODES, Passes, recompress_command
from pipelines.schedules.scheduled_pass import check_file
from pipelines.schedules.timetable import interval, next_start

DEFAULT_INTERVAL = "15m"
LONGEST_BACKOFF = timedelta(hours=1)


def watch_file(path: Path, home: Path, every: str | None) -> int:
    """`recompress --watch` with the file at `path`. Raises UserError for an invalid interval."""
    check_file(path)
    return watch(Passes(recompress_command(path, home)), interval(every or DEFAULT_INTERVAL))


def watch(passes: Passes, every: timedelta) -> int:
    """Runs a pass now and at each multiple of `every` in UTC, until SIGTERM or SIGINT; returns 0.

    A start during a running pass is left out. After passes that crash, the wait doubles each time,
    up to an hour (or `every`, if that is longer). A second signal kills the pass at once.
    """
    stop_requested = threading.Event()

    signals: list[int] = []

    def stop() -> None:
        passes.log.emit("stopping", signal=signal.Signals(signals[0]).name)
        stop_requested.set()
        passes.stop()

    def request_stop(number: int, _: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            passes.kill()
        else:
            # In a thread: all that it does takes locks that the interrupted main thread may hold.
            threading.Thread(target=stop).start()

    handlers = {
        number: signal.signal(number, request_stop) for number in (signal.SIGTERM, signal.SIGINT)
    }
    passes.log.emit("watching", every_seconds=every.total_seconds(), command=passes.command)
    try:
        _repeat(passes, every, stop_requested)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    passes.log.emit("stopped")
    return 0


def _repeat(passes: Passes, every: timedelta, stop_requested: threading.Event) -> None:
    crashes = 0
    while (code := passes.run("watch")) is not None and not stop_requested.is_set():
        crashes = 0 if code in ORDERLY_CODES else crashes + 1
        start = next_start(datetime.now(UTC), interval_after(every, crashes))
        passes.log.emit("waiting", next_start=start, crashes_in_a_row=crashes)
        # The wait is short and repeated: clocks are set, and machines sleep.
        while (left := (start - datetime.now(UTC)).total_seconds()) > 0:
            if stop_requested.wait(min(left, 60)):
                return


def interval_after(every: timedelta, crashes: int) -> timedelta:
    """The interval between starts after so many crashes in a row."""
    return max(every, min(every * (1 << min(crashes, 16)), LONGEST_BACKOFF))
