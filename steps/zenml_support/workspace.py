"""Where a run keeps things: the home folder, and the working directory of each stage."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

TIMING = "timing.json"


def home() -> Path:
    """The folder of stores and studies: ADAPRUNER_HOME, else `.adapruner` here. Made if absent."""
    path = Path(os.environ.get("ADAPRUNER_HOME") or ".adapruner").absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def study_storage(given: str | None) -> str:
    """The Optuna storage URL that the config gives, else SQLite in the home folder."""
    return given or f"sqlite:///{home() / 'studies.db'}"


@contextmanager
def stage(name: str) -> Iterator[Path]:
    """An empty directory for the results of stage `name`; its wall time goes to timing.json.

    A stage that fails leaves nothing behind. Directories go when the process ends: by then the
    artifact store holds hard links to, or copies of, all that is in them.
    """
    out = _work_root(_scratch()) / f"{name}-{uuid4().hex}"
    out.mkdir()
    started = time.perf_counter()
    try:
        yield out
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    seconds = round(time.perf_counter() - started, 3)
    (out / TIMING).write_text(json.dumps({"seconds": seconds}) + "\n")


def clear() -> None:
    """Remove the directories of the stages that this process has run, once they are stored."""
    for left in _work_root(_scratch()).iterdir():
        shutil.rmtree(left, ignore_errors=True)


def seconds_of(stage_directory: Path) -> float:
    """Wall time in seconds that a stage took when it really ran."""
    return float(json.loads((stage_directory / TIMING).read_text())["seconds"])


def _scratch() -> Path:
    """A folder on the artifact store's own file system, so that hard links can be made."""
    from zenml.client import Client

    store = Client().active_stack.artifact_store
    return Path(store.path) if store.config.is_local else Path(tempfile.gettempdir())


@cache
def _work_root(scratch: Path) -> Path:
    work = scratch / ".adapruner-work"
    work.mkdir(parents=True, exist_ok=True)
    _sweep(work)
    root = Path(tempfile.mkdtemp(prefix=f"{socket.gethostname()}~{os.getpid()}~", dir=work))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _sweep(work: Path) -> None:
    """Remove what processes of this machine that were killed have left."""
    for left in work.glob(f"{socket.gethostname()}~*~*"):
        try:
            os.kill(int(left.name.split("~")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (PermissionError, ValueError):
            continue
