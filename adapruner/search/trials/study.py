"""The study that stores the trials: one owner at a time, resumable, reproducible."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from adapruner.config import SearchConfig
from adapruner.databases import sqlite_file
from adapruner.errors import UserError
from adapruner.importance.recipe import Recipe
from adapruner.progress import track
from adapruner.search.front import Values
from adapruner.search.parallel.lease import held_lease
from adapruner.search.parallel.storage import is_in_memory, lock_file, open_storage
from adapruner.search.trials.evaluator import Evaluation, IsHopeless
from adapruner.search.trials.samplers import make_sampler
from adapruner.search.trials.space import SearchSpace

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
    storage can't be opened or the study has an owner.
    """
    opened = open_storage(storage)
    with locked_study(name, storage, opened, objectives) as study:
        # The lock of a file is one machine's.
        is_server = not is_in_memory(storage) and sqlite_file(storage) is None
        with held_lease(opened, study) if is_server else nullcontext():
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                study.tell(trial.number, state=TrialState.FAIL)  # its process is gone
            yield study


@contextmanager
def locked_study(
    name: str, url: str, storage: RDBStorage, objectives: int
) -> Iterator[optuna.Study]:
    """The study in the `storage` of `url`, created if absent, locked on this machine."""
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=["minimize"] * objectives,
        load_if_exists=True,
    )
    with _locked(lock_file(name, url), name):
        yield study


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


def is_stopped(trial: FrozenTrial) -> bool:
    """Whether a trial ended before its last window; its value is then an estimate."""
    return bool(trial.user_attrs["stopped"])


@dataclass(frozen=True)
class Assessed:
    """An evaluated recipe: the losses of all windows, estimated from a part where `is_stopped`."""

    result: Evaluation
    losses: list[float]
    is_stopped: bool


def assess(
    recipe: Recipe,
    reference: FrozenTrial | None,
    evaluate: Evaluate,
    report: Callable[[float, int], None],
) -> Assessed:
    """Evaluates a recipe until it is significantly worse than `reference`, if there is one.

    `report` is called with the loss and the number of each window that is compared.
    """
    best, seen = _losses(reference), list[float]()
    if reference is None or not best:
        result = evaluate(recipe, None)
        return Assessed(result, result.losses, False)
    pruner, only_best = _pruner(), optuna.create_study(direction="minimize")
    only_best.add_trial(reference)

    def is_hopeless(losses: list[float]) -> bool:
        for loss in losses:
            report(loss, len(seen))
            seen.append(loss)
        shown = create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(seen)))
        # The test compares ranks: a few windows may outweigh many.
        return pruner.prune(only_best, shown) and fmean(seen) > fmean(best[: len(seen)])

    result = evaluate(recipe, is_hopeless)
    stopped = len(result.losses) < len(best)
    return Assessed(result, _completed(result.losses, best) if stopped else result.losses, stopped)


def attributes(name: str, recipe: Recipe, assessed: Assessed) -> dict[str, Any]:
    """What is stored of a trial beside its values."""
    return {
        "name": name,
        "recipe": recipe.model_dump_json(),
        "seconds": assessed.result.seconds,
        "windows": len(assessed.result.losses),
        "stopped": assessed.is_stopped,
    }


def _pruner() -> optuna.pruners.BasePruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(
            p_threshold=STOPPING_P_VALUE, n_startup_steps=STARTUP_WINDOWS
        )


def _losses(reference: FrozenTrial | None) -> list[float]:
    """The losses of a trial, by window."""
    losses = reference.intermediate_values if reference else {}
    return [losses[step] for step in sorted(losses)]


def _completed(losses: list[float], best: list[float]) -> list[float]:
    """The losses of all windows: the missing ones are the best trial's, plus the mean difference.

    The windows differ far more than trials do, so the mean of a part alone would be biased.
    """
    difference = fmean(losses) - fmean(best[: len(losses)])
    return losses + [loss + difference for loss in best[len(losses) :]]


def _run_trial(
    study: optuna.Study, space: SearchSpace, evaluate: Evaluate, values_of: ValuesOf
) -> None:
    trial = study.ask(space.distributions)
    recipe = space.recipe(trial.params)
    reference = study.best_trial if len(study.directions) == 1 else None
    assessed = assess(recipe, reference, evaluate, trial.report)
    for name, attribute in attributes(TRIAL, recipe, assessed).items():
        trial.set_user_attr(name, attribute)
    study.tell(trial, values_of(assessed.losses))


def _run_warm_start(
    study: optuna.Study, space: SearchSpace, name: str, evaluate: Evaluate, values_of: ValuesOf
) -> None:
    params, recipe = space.warm_starts[name]
    result, is_single = evaluate(recipe, None), len(study.directions) == 1
    assessed = Assessed(result, result.losses, is_stopped=False)
    study.add_trial(
        create_trial(
            state=OUTSIDE if space.distributions and not params else TrialState.COMPLETE,
            params=params,
            distributions={key: space.distributions[key] for key in params},
            values=values_of(assessed.losses),
            # Some samplers order trials outside by them, which needs one objective.
            intermediate_values=dict(enumerate(assessed.losses)) if is_single else {},
            user_attrs=attributes(name, recipe, assessed),
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
