"""One pass over the registry from start to end: the lock of the home folder and the exit code."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from pipelines import home as homes
from pipelines import stack
from pipelines.errors import explain, is_full_disk
from pipelines.log import EventLog
from pipelines.recompress.config import RecompressFile

DONE, UNUSABLE, SOME_FAILED, NOT_NOW = 0, 2, 4, 5
FAILURES = frozenset({"failed", "gave_up", "changed"})
LOCK_FILE = "recompress.lock"


def run_pass(path: Path, home: Path, retry_failed: bool = False) -> int:
    """Compresses what the recompress file at `path` selects; returns the exit code.

    0: nothing failed. 4: a version failed or its files have changed; the others were compressed.
    5: nothing was done, because the registry does not answer or other processes hold all the work.
    2: the disk is full. Raises UserError for a mistake in the file.
    """
    file = RecompressFile(path)
    log = EventLog(sys.stdout)
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with _lock_of(home) as is_locked, _sigterm_raises():
        if not is_locked:
            log.emit("stopped", reason=f"another pass runs in the home folder {home}")
            return NOT_NOW
        stack.use_home(home)
        with homes.exclusive(home):
            homes.enter(home)
        with log.redirect_other_output():
            return _run_logged(file, home, log, retry_failed)


def _run_logged(file: RecompressFile, home: Path, log: EventLog, retry_failed: bool) -> int:
    """Runs the pass; logs why it stopped early, a summary and the exit code."""
    from pipelines.recompress.one_pass import RecompressPass
    from steps.mlflow_support.tracking import TrackingUnavailableError

    started = time.perf_counter()
    one_pass = None
    try:
        one_pass = RecompressPass(file, home, log, retry_failed)
        one_pass.run()
        code = _exit_code(one_pass.context.outcomes)
    except TrackingUnavailableError as error:
        log.emit("stopped", reason=str(error))
        code = NOT_NOW
    except Exception as error:
        if is_full_disk(error):
            log.emit("stopped", reason=explain(error))
            code = UNUSABLE
        elif one_pass is not None and one_pass.context.store_fails(error):
            log.emit("stopped", reason="the registry no longer answers; the next pass goes on")
            code = NOT_NOW
        else:
            raise
    seconds = round(time.perf_counter() - started, 1)
    log.print_summary()
    outcomes = one_pass.context.outcomes if one_pass else {}
    log.emit("finished", exit_code=code, seconds=seconds, **outcomes)
    return code


def _exit_code(outcomes: Counter[str]) -> int:
    if any(outcomes[outcome] for outcome in FAILURES):
        return SOME_FAILED
    return NOT_NOW if outcomes["held"] and not outcomes["compressed"] else DONE


@contextmanager
def _lock_of(home: Path) -> Iterator[bool]:
    """Whether this is the only pass in the home folder. Another one would find the same work held.

    The kernel holds the lock, so that it ends with the process, however that ends. A lock file of
    another kind would remain after a kill and block every later pass: no fallback to one.
    """
    lock = FileLock(home / LOCK_FILE, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turns SIGTERM into SystemExit, so that the version at work is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
