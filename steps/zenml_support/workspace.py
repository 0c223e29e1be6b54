"""The home folder of stores and studies, and the working directory of each stage."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from adapruner.files import Artifact
from adapruner.temporary import claimed_folder, remove_abandoned

CACHE = "ADAPRUNER_CACHE"
"""The variable with the folder of files of a remote store by their content, see `transfer`."""

WORK = ".adapruner-work"
"""The folder with one folder for each process."""


class Timing(Artifact):
    """How long a stage ran, in seconds of wall time; a cached stage keeps its first time."""

    FILE: ClassVar[str] = "timing.json"

    seconds: float


def home() -> Path:
    """The folder of stores and studies: ADAPRUNER_HOME, else `.adapruner` in the working directory.

    It is created if it does not exist.
    """
    path = Path(os.environ.get("ADAPRUNER_HOME") or ".adapruner").absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def fetched() -> Path:
    """The folder of the copies of files behind URLs."""
    return home() / "fetched"


def downloaded() -> Path:
    """The folder of the copies of registered checkpoints."""
    return home() / "models"


def study_storage(url: str | None) -> str:
    """The URL of the Optuna storage: the configured one, else SQLite in the home folder."""
    return url or f"sqlite:///{home() / 'studies.db'}"


def has_scheme(uri: str) -> bool:
    """Whether a source is no path of a file system: s3://, hub:, models:/, package:, self."""
    return uri == "self" or re.match(r"(?!file:)[a-z][a-z0-9+.-]+:", uri) is not None


def is_shared_database(uri: str) -> bool:
    """Whether the URL of a store is a database server, not a file."""
    return re.match(r"(postgresql|mysql|mariadb|mssql|oracle)(\+\w+)?://", uri) is not None


def runs_in_containers() -> bool:
    """Whether steps of the active stack run in containers, where no file outlives its step."""
    from zenml.client import Client
    from zenml.orchestrators import ContainerizedOrchestrator

    return isinstance(Client().active_stack.orchestrator, ContainerizedOrchestrator)


@contextmanager
def stage(name: str) -> Iterator[Path]:
    """An empty directory for the results of stage `name`; adds its `Timing` at the end.

    The directory of a stage that fails is removed at once. The others are removed when the process
    ends: by then the artifact store has hard links to their files, or copies.
    """
    out = _process_directory(_scratch()) / f"{name}-{uuid4().hex}"
    out.mkdir()
    started = time.perf_counter()
    try:
        yield out
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    Timing(seconds=round(time.perf_counter() - started, 3)).write(out)


def node_cache() -> Path:
    """The folder of files of a remote store by their content, see `transfer`."""
    return Path(os.environ.get(CACHE) or _process_directory(_scratch()) / "cache")


def new_input() -> Path:
    """An empty directory for an input from a remote store, where hard links to the cache are
    possible. It is removed when the process ends."""
    parent = os.environ.get(CACHE)
    out = _process_directory(Path(parent) if parent else _scratch()) / f"input-{uuid4().hex}"
    out.mkdir()
    return out


def result_files(stage_directory: Path) -> list[Path]:
    """The entries of a stage's directory in order of name, without its `Timing`."""
    return sorted(path for path in stage_directory.iterdir() if path.name != Timing.FILE)


def remove_stage_directories() -> None:
    """Removes the stage directories of this process, whose files the artifact store has by now."""
    for path in _process_directory(_scratch()).iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _scratch() -> Path:
    """A folder on the file system of a local artifact store, where hard links to it are possible.

    For a remote store it is the system's folder of temporary files.
    """
    from zenml.client import Client

    store = Client().active_stack.artifact_store
    return Path(store.path) if store.config.is_local else Path(tempfile.gettempdir())


@cache
def _process_directory(scratch: Path) -> Path:
    work = scratch / WORK
    work.mkdir(parents=True, exist_ok=True)
    remove_abandoned(work.iterdir())
    directory, _ = claimed_folder(work, f"{socket.gethostname()}~")  # until the process ends
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
