"""The study that stores the trials: one owner at a time, resumable, reproducible."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState, create_trial

from adapruner.config import SearchConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_json
from adapruner.importance.recipe import Recipe
from adapruner.progress import track
from adapruner.search.samplers import make_sampler
from adapruner.search.space import SearchSpace

TRIAL = "trial"
"""Name of the trials that are no warm starts."""

Evaluate = Callable[[Recipe], tuple[float, dict[str, float]]]


@contextmanager
def owned_study(name: str, storage: str) -> Iterator[optuna.Study]:
    """The study, created if absent, which no other process can own until the block ends.

    Trials that a killed process left unfinished are marked as failed. Raises UserError when the
    storage can't be opened or the study has an owner. A study in a database server can have one
    owner on each machine (and for each user there).
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=name, storage=storage, direction="minimize", load_if_exists=True
        )
    except Exception as error:
        raise UserError(
            f"the study's storage can't be opened ({type(error).__name__}); see search.storage"
        ) from None
    with _locked(lock_file(name, storage), name):
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)  # its process is gone
        yield study


def lock_file(name: str, storage: str) -> Path:
    """The file that the owner of a study holds a lock on. It is empty and stays.

    It is beside an SQLite database, and in the folder for temporary files for other storages.
    """
    backend, _, location = storage.partition("://")
    database = location.partition("?")[0].partition("/")[2]
    if backend.startswith("sqlite") and Path(database).is_file():
        file = Path(database).resolve()
        return file.with_name(f"{file.name}.{name}.lock")
    # A database in memory belongs to its process. What precedes the @ may be a password.
    owner = os.getpid() if database in ("", ":memory:") else os.getuid()
    where = hash_json([backend, location.rpartition("@")[2], owner])[:16]
    return Path(tempfile.gettempdir()) / f"{name}.{where}.lock"


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials, in their order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def run_trials(
    study: optuna.Study, space: SearchSpace, search: SearchConfig, seed: int, evaluate: Evaluate
) -> list[FrozenTrial]:
    """Runs the missing trials; returns the first `search.trials`, all warm starts at least.

    The sampler of each trial is seeded with the number of finished trials, so that an interrupted
    study ends like one that was not interrupted.
    """
    values = {trial.user_attrs["recipe"]: trial.value for trial in finished_trials(study)}
    names = {trial.user_attrs["name"] for trial in finished_trials(study)}

    def run(recipe: Recipe) -> tuple[float, dict[str, Any]]:
        key = recipe.model_dump_json()
        value = values.get(key)
        seconds: dict[str, float] = {}
        if value is None:
            value, seconds = evaluate(recipe)
        values[key] = value
        return value, {"recipe": key, "seconds": seconds}

    total = max(search.trials, len(space.warm_starts))
    missing = [name for name in space.warm_starts if name not in names]
    for position in track(range(total - len(finished_trials(study))), "search"):
        if position < len(missing):
            _run_warm_start(study, space, missing[position], run)
        else:
            study.sampler = make_sampler(search.sampler, seed + len(finished_trials(study)))
            trial = study.ask(space.distributions)
            value, attributes = run(space.recipe(trial.params))
            for key, attribute in (attributes | {"name": TRIAL}).items():
                trial.set_user_attr(key, attribute)
            study.tell(trial, value)
    return finished_trials(study)[:total]


def _run_warm_start(
    study: optuna.Study,
    space: SearchSpace,
    name: str,
    run: Callable[[Recipe], tuple[float, dict[str, Any]]],
) -> None:
    params, recipe = space.warm_starts[name]
    value, attributes = run(recipe)
    study.add_trial(
        create_trial(
            params=params,
            distributions={key: space.distributions[key] for key in params},
            value=value,
            user_attrs=attributes | {"name": name},
        )
    )


@contextmanager
def _locked(file: Path, name: str) -> Iterator[None]:
    """Holds a lock that the kernel releases when the process ends, however it ends."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another run is searching the study {name} (it holds '{file}'): wait until it "
            "ends, or set another search.storage"
        ) from None
    try:
        yield
    finally:
        lock.release()
