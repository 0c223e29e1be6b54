"""One pass over the registry: what has no compressed version gets one, once, and no more."""

from __future__ import annotations

import fcntl
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines import stack
from pipelines.log import Log

FINE, UNUSABLE, SOME_FAILED, NOT_NOW = 0, 2, 4, 5
FAILED = frozenset({"failed", "gave_up", "changed"})


def recompress(path: Path, home: Path, retry_failed: bool = False) -> int:
    """Do all that is to be done for the recompress file `path` now; the exit code.

    0: nothing failed. 4: a version failed, or is no longer what was compressed; the others were
    done. 5: nothing could be done now, because the registry does not answer or another owner holds
    all the work. A full disk, told as an event, is 2. Raises UserError for a mistake in the file.
    """
    from pipelines.recompress.config import Plan

    plan = Plan(path)
    log = Log(sys.stdout)
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with _only_pass_in(home) as alone, _stopped_by_sigterm():
        if not alone:
            log.emit("stopped", reason=f"another pass runs in the home folder {home}")
            return NOT_NOW
        stack.use_home(home)
        from pipelines.recompress.one_pass import Pass

        with log.alone_on_stdout():
            return _whole(Pass(plan, home, log, retry_failed), log)


def _whole(one: Any, log: Log) -> int:
    """The pass with its beginning and its end told."""
    from pipelines.errors import explain, is_full
    from steps.mlflow_support.tracking import TrackingUnavailableError

    started = time.perf_counter()
    code = None
    try:
        one.work()
    except TrackingUnavailableError as error:
        log.emit("stopped", reason=str(error))
        code = NOT_NOW
    except Exception as error:
        if is_full(error):
            log.emit("stopped", reason=explain(error))
            code = UNUSABLE
        elif one.store_is_away(error):
            log.emit("stopped", reason="the registry no longer answers; the next pass goes on")
            code = NOT_NOW
        else:
            raise
    if code is None:
        code = _code(one.outcomes)
    seconds = round(time.perf_counter() - started, 1)
    log.table()
    log.emit("finished", exit_code=code, seconds=seconds, **one.outcomes)
    return code


def _code(outcomes: Counter[str]) -> int:
    if any(outcomes[word] for word in FAILED):
        return SOME_FAILED
    return NOT_NOW if outcomes["held"] and not outcomes["compressed"] else FINE


@contextmanager
def _only_pass_in(home: Path) -> Iterator[bool]:
    """Whether this is the only pass in the home folder, whose ZenML store is made for one.

    The lock is the kernel's: it goes with the process, however that ends.
    """
    with (home / "recompress.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let a scheduler's stop unwind the stack, so that the version at work is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
