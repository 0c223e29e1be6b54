"""The study that a search keeps its trials in: one owner at a time, samplers by name."""

from __future__ import annotations

import fcntl
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from torch import Tensor

from adapruner.search import space
from adapruner.config import SearchConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_json
from adapruner.progress import track
from adapruner.importance.scores import Recipe

STARTUP = 8
"""Trials that a sampler draws at random before it believes what it has seen."""

_NAMED: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP),
    "gp": lambda seed: optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=STARTUP, deterministic_objective=True
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def sampler_of(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler that search.sampler names, seeded. Raises UserError for one that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _NAMED[name](seed) if name in _NAMED else _own(name, seed)


def _own(name: str, seed: int) -> optuna.samplers.BaseSampler:
    module, _, attribute = name.partition(":")
    try:
        sampler = getattr(importlib.import_module(module), attribute)(seed=seed)
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(
            f"search.sampler '{name}' can't be made ({error}): wanted something importable that "
            "is called with seed=... and gives an Optuna sampler"
        ) from None
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise UserError(
            f"search.sampler '{name}' gives a {type(sampler).__name__}, no Optuna sampler"
        )
    return sampler


def finished(study: optuna.Study) -> list[Any]:
    """The completed trials, in their order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


@contextmanager
def owned_study(name: str, storage: str) -> Iterator[optuna.Study]:
    """The study, made if absent, which nobody else can own until the block ends.

    Trials that a process left unfinished when it died are marked as failed. Raises UserError when
    the storage can't be opened or the study has an owner. A study in a database server has one
    owner on each machine (and for each user there): owners on two machines are not told apart.
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
    # A database in memory is its process' own. What is before the @ may be a password.
    owner = os.getpid() if database in ("", ":memory:") else os.getuid()
    where = hash_json([backend, location.rpartition("@")[2], owner])[:16]
    return Path(tempfile.gettempdir()) / f"{name}.{where}.lock"


@contextmanager
def _locked(file: Path, name: str) -> Iterator[None]:
    """Holds a lock that the kernel takes back when the process ends, however it ends."""
    with file.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another run is searching the study {name} (it holds '{file}'): wait until it "
                "ends, or give this run another search.storage"
            ) from None
        yield


def run_trials(
    opened: optuna.Study,
    distributions: space.Space,
    starts: space.Starts,
    signatures: Tensor,
    search: SearchConfig,
    seed: int,
    objective: Callable[[Recipe], tuple[float, dict[str, Any]]],
) -> list[Any]:
    """Runs the missing trials; returns the first `search.trials`, all warm starts at least."""
    known = {trial.user_attrs["recipe"]: trial.value for trial in finished(opened)}
    done = {trial.user_attrs["name"] for trial in finished(opened)}

    def run(recipe: Recipe) -> tuple[float, dict[str, Any]]:
        spelled = recipe.model_dump_json()
        seen = known.get(spelled)
        value, seconds = (seen, {}) if seen is not None else objective(recipe)
        known[spelled] = value
        return value, {"recipe": spelled, "seconds": seconds}

    total = max(search.trials, len(starts))
    missing = [name for name in starts if name not in done]
    for position in track(range(total - len(finished(opened))), "search"):
        if position < len(missing):
            params, recipe = starts[missing[position]]
            value, attrs = run(recipe)
            opened.add_trial(
                create_trial(
                    params=params,
                    distributions={name: distributions[name] for name in params},
                    value=value,
                    user_attrs=attrs | {"name": missing[position]},
                )
            )
            continue
        opened.sampler = sampler_of(search.sampler, seed + len(finished(opened)))
        trial = opened.ask(distributions)
        value, attrs = run(space.recipe_of(trial.params, signatures))
        for key, attr in (attrs | {"name": "trial"}).items():
            trial.set_user_attr(key, attr)
        opened.tell(trial, value)
    return finished(opened)[:total]
