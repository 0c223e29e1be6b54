"""Leads and workers of a small search as real processes, whose death is noticed within seconds."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from adapruner.config import PlanConfig
from adapruner.search.inputs import SearchInputs
from adapruner.search.parallel import lease, queue
from adapruner.search.search import search
from pipelines.cli.main import main

# One import of torch and Transformers for all processes.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__, "adapruner.search.parallel.worker"])

BEAT_S, EXPIRY_S = 0.5, 8.0
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Meeting:
    """At its first trial from position `trial` on, a process makes `own`, and waits for `others`.

    A process that `hangs` never leaves that trial.
    """

    own: Path
    others: tuple[Path, ...] = ()
    trial: int = 0
    hangs: bool = False

    def arrange(self) -> None:
        """Changes this process."""
        lease.BEAT_S, lease.EXPIRY_S = BEAT_S, EXPIRY_S
        run = queue._run

        def met(*arguments: Any) -> None:
            if arguments[2].user_attrs[queue.POSITION] >= self.trial and not self.own.exists():
                self.own.touch()
                while self.hangs or not all(file.exists() for file in self.others):
                    time.sleep(0.05)
            run(*arguments)

        queue._run = met


def lead(
    meeting: Meeting, inputs: SearchInputs, config: PlanConfig, storage: str, out: Path
) -> None:
    """Runs the search."""
    meeting.arrange()
    out.mkdir(exist_ok=True)
    search(inputs, config, storage, out)


def worker(meeting: Meeting, storage: str) -> None:
    """`adapruner work`."""
    meeting.arrange()
    main(["work", "--storage", storage, "--wait", f"{PATIENCE_S:.0f}s"])


def start(target: Any, *arguments: Any) -> ForkServerProcess:
    """A process that runs `target`."""
    process = SERVER.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def wait_for(file: Path, process: ForkServerProcess) -> None:
    """Waits until the process has made `file`."""
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)


def ended(process: ForkServerProcess) -> int | None:
    """The exit code of a process that ends by itself."""
    process.join(PATIENCE_S)
    return process.exitcode
