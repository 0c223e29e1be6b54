"""The study that stores the trials: one owner at a time, resumable, reproducible."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState, create_trial

from adapruner.config import SearchConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_json
from adapruner.importance.recipe import Recipe
from adapruner.progress import track
from adapruner.search.evaluator import Evaluation, IsHopeless
from adapruner.search.front import Values
from adapruner.search.samplers import make_sampler
from adapruner.search.space import SearchSpace

OUTSIDE = TrialState.PRUNED
"""State of warm starts outside the space. They have no parameters, and some samplers use only the
parameters that all complete trials have."""

TRIAL = "trial"
"""Name of the trials that are no warm starts."""

STOPPING_P_VALUE = 0.1
"""A trial is stopped where a signed-rank test against the best one gives a lower p-value."""

STARTUP_WINDOWS = 8
"""Windows before a trial may be stopped."""

Evaluate = Callable[[Recipe, IsHopeless | None], Evaluation]
ValuesOf = Callable[[Sequence[float]], Values]


@contextmanager
def owned_study(name: str, storage: str, objectives: int = 1) -> Iterator[optuna.Study]:
    """The study, created if absent, which no other process can own until the block ends.

    Its trials have as many values as there are `objectives`, all minimized.

    Trials that a killed process left unfinished are marked as failed. Raises UserError when the
    storage can't be opened or the study has an owner. A study in a database server can have one
    owner on each machine (and for each user there).
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["minimize"] * objectives,
            load_if_exists=True,
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
    """The finished trials, in their order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, OUTSIDE))


def run_trials(
    study: optuna.Study,
    space: SearchSpace,
    search: SearchConfig,
    seed: int,
    evaluate: Evaluate,
    values_of: ValuesOf,
) -> list[FrozenTrial]:
    """Runs the missing trials; returns the first `search.trials`, all warm starts at least.

    The sampler of each trial is seeded with the number of finished trials, so that an interrupted
    study ends like one that was not interrupted. `values_of` makes a trial's values of the losses
    of all windows. With one objective, a trial whose losses are significantly above those of the
    best one on the same windows is stopped.
    """
    study.pruner = _pruner()
    names = {trial.user_attrs["name"] for trial in finished_trials(study)}
    total = max(search.trials, len(space.warm_starts))
    missing = [name for name in space.warm_starts if name not in names]
    for position in track(range(total - len(finished_trials(study))), "search"):
        if position < len(missing):
            _run_warm_start(study, space, missing[position], evaluate, values_of)
        else:
            study.sampler = make_sampler(search.sampler, seed + len(finished_trials(study)))
            _run_trial(study, space, evaluate, values_of)
    return finished_trials(study)[:total]


def _pruner() -> optuna.pruners.BasePruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(
            p_threshold=STOPPING_P_VALUE, n_startup_steps=STARTUP_WINDOWS
        )


def is_stopped(trial: FrozenTrial) -> bool:
    """Whether a trial ended before its last window; its value is then an estimate."""
    return bool(trial.user_attrs["stopped"])


def _run_trial(
    study: optuna.Study, space: SearchSpace, evaluate: Evaluate, values_of: ValuesOf
) -> None:
    trial = study.ask(space.distributions)
    recipe = space.recipe(trial.params)
    best, seen = _losses_of_best(study), list[float]()

    def is_hopeless(losses: list[float]) -> bool:
        for loss in losses:
            trial.report(loss, len(seen))
            seen.append(loss)
        # The test compares ranks: a few windows may outweigh many.
        return trial.should_prune() and fmean(seen) > fmean(best[: len(seen)])

    result = evaluate(recipe, is_hopeless if best else None)
    stopped = len(result.losses) < len(best)
    losses = _completed(result.losses, best) if stopped else result.losses
    for name, attribute in _attributes(TRIAL, recipe, result, stopped).items():
        trial.set_user_attr(name, attribute)
    study.tell(trial, values_of(losses))


def _losses_of_best(study: optuna.Study) -> list[float]:
    """The losses of the best trial, by window; none with several objectives."""
    if len(study.directions) > 1:
        return []
    losses = study.best_trial.intermediate_values
    return [losses[step] for step in sorted(losses)]


def _completed(losses: list[float], best: list[float]) -> list[float]:
    """The losses of all windows: the missing ones are the best trial's, plus the mean difference.

    The windows differ far more than trials do, so the mean of a part alone would be biased.
    """
    difference = fmean(losses) - fmean(best[: len(losses)])
    return losses + [loss + difference for loss in best[len(losses) :]]


def _run_warm_start(
    study: optuna.Study, space: SearchSpace, name: str, evaluate: Evaluate, values_of: ValuesOf
) -> None:
    params, recipe = space.warm_starts[name]
    result, is_single = evaluate(recipe, None), len(study.directions) == 1
    study.add_trial(
        create_trial(
            state=OUTSIDE if space.distributions and not params else TrialState.COMPLETE,
            params=params,
            distributions={key: space.distributions[key] for key in params},
            values=values_of(result.losses),
            # Some samplers order trials outside by them, which needs one objective.
            intermediate_values=dict(enumerate(result.losses)) if is_single else {},
            user_attrs=_attributes(name, recipe, result, stopped=False),
        )
    )


def _attributes(name: str, recipe: Recipe, result: Evaluation, stopped: bool) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": recipe.model_dump_json(),
        "seconds": result.seconds,
        "windows": len(result.losses),
        "stopped": stopped,
    }


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
