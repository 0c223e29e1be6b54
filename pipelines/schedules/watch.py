"""Passes in the foreground, again and again: for containers and terminals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TypeVar

import click

from pipelines.schedules.passes import ORDERLY, Passes, log, moment, recompress_command
from pipelines.schedules.plan import check_file
from pipelines.schedules.timetable import interval, next_start

LONGEST_BACKOFF = timedelta(hours=1)
Command = TypeVar("Command", bound=Callable[..., object])


def add_watch_options(command: Command) -> Command:
    """The options --watch and --every, for a command that then calls `watch_file`."""
    every = click.option(
        "--every",
        metavar="INTERVAL",
        help="With --watch: how often, as 90s, 15m, 6h or 1d. Default: 15m.",
    )
    watch = click.option(
        "--watch", is_flag=True, help="Stay, and make a pass again and again until SIGTERM or ^C."
    )
    return watch(every(command))


def watch_file(path: Path, home: Path, every: str | None) -> int:
    """`recompress --watch`: passes over the file at `path`. Raises UserError for a bad interval."""
    check_file(path)
    return watch(Passes(recompress_command(path, home)), interval(every or "15m"))


def watch(passes: Passes, every: timedelta) -> int:
    """Make a pass now and at each multiple of `every` in UTC, until SIGTERM or SIGINT; 0 then.

    A start that falls into a running pass is left out. After passes that crash, the wait doubles
    each time, up to an hour (or `every`, if that is longer). A second signal kills the pass at
    once.
    """
    asked = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        if asked.is_set():
            passes.kill()
        else:
            asked.set()
            log("stopping", signal=signal.Signals(number).name)
            # Stopping takes a lock, which the interrupted main thread may hold.
            threading.Thread(target=passes.stop).start()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    log("watching", every_seconds=every.total_seconds(), command=passes.command)
    try:
        _repeat(passes, every, asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    log("stopped")
    return 0


def _repeat(passes: Passes, every: timedelta, asked: threading.Event) -> None:
    crashes = 0
    while (code := passes.run("watch")) is not None and not asked.is_set():
        crashes = 0 if code in ORDERLY else crashes + 1
        start = next_start(datetime.now(UTC), wait(every, crashes))
        log("waiting", next_start=moment(start), crashes_in_a_row=crashes)
        # A wait in parts: clocks are set, and machines sleep.
        while (left := (start - datetime.now(UTC)).total_seconds()) > 0:
            if asked.wait(min(left, 60)):
                return


def wait(every: timedelta, crashes: int) -> timedelta:
    """How far apart starts are after so many crashes in a row."""
    return max(every, min(every * (1 << min(crashes, 16)), LONGEST_BACKOFF))
