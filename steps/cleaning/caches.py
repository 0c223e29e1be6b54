"""What a run makes again when it needs it: studies, downloads, and the node's cache."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from adapruner.databases import sqlite_file
from adapruner.remote_files import PARTIAL
from adapruner.search.parallel.storage import lock_file, open_storage
from steps.cleaning.removal import Removal
from steps.zenml_support.transfer import blobs
from steps.zenml_support.workspace import CACHE, downloaded, fetched, study_storage


def old_studies(before: float) -> list[Removal]:
    """The studies in the home whose last trial was before `before` (seconds since 1970)."""
    url = study_storage(None)
    file = sqlite_file(url)
    if file is None or not file.exists():
        return []
    storage = open_storage(url)
    found = []
    for study in storage.get_all_studies():
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        when = max(map(_end, trials), default=0.0)
        if when <= before:
            forget = partial(optuna.delete_study, study_name=study.study_name, storage=storage)
            lock = lock_file(study.study_name, url)
            paths = (lock,) if lock.exists() else ()
            found.append(Removal(f"study {study.study_name}", when or before, paths, forget))
    return found


def old_downloads(before: float) -> list[Removal]:
    """Copies of registered checkpoints and of files behind URLs, last used before `before`."""
    copies = [path for path in downloaded().glob("*/*") if not path.name.startswith(PARTIAL)]
    copies += fetched().glob("*")
    times = [(path, path.stat().st_mtime) for path in sorted(copies)]
    return [Removal(f"download {path}", when, (path,)) for path, when in times if when <= before]


def old_blobs(before: float) -> list[Removal]:
    """The files in ADAPRUNER_CACHE that no step has used since `before`, as one entry."""
    cache = os.environ.get(CACHE)
    if not cache:
        return []
    files = {blob: blob.stat().st_mtime for blob in blobs(Path(cache))}
    old = {file: when for file, when in files.items() if when <= before}
    return [Removal(f"{len(old)} files in {cache}", max(old.values()), tuple(old))] if old else []


def _end(trial: FrozenTrial) -> float:
    time = trial.datetime_complete or trial.datetime_start
    return time.timestamp() if time else 0.0
