"""Generations of trials: what the lead of a study does.

The first generation are the warm starts; each of the others has `search.parallel` trials. The
sampler gets the results of all earlier generations in the order of the trials, and is seeded with
the trial's position. So a process that takes over asks for the same trials.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from adapruner.config import PlanConfig
from adapruner.errors import UserError
from adapruner.progress import track
from adapruner.search.parallel.lease import Lease, held_lease, repeated
from adapruner.search.parallel.queue import (
    FINISHED,
    KNOWN,
    NAME,
    POSITION,
    DeadWorkers,
    Queue,
    Trials,
    run_next,
)
from adapruner.search.parallel.storage import is_in_memory, open_storage
from adapruner.search.trials.samplers import make_sampler
from adapruner.search.trials.space import SearchSpace
from adapruner.search.trials.study import TRIAL, locked_study
from adapruner.search.trials.task import TrialRunner

POLL_S = 0.5
"""Seconds between two looks at the trials of others."""

DONE = "done"
"""The study's attribute that says that no trial is missing."""


@dataclass(frozen=True)
class Lead:
    """A study that this process leads."""

    queue: Queue
    lease: Lease

    @property
    def study(self) -> optuna.Study:
        """The study."""
        return self.queue.study


@contextmanager
def led_study(name: str, storage_url: str, objectives: int) -> Iterator[Lead]:
    """The study, created if absent, which no other process can lead until the block ends.

    Trials of dead workers are put back meanwhile. Raises UserError when the storage can't be opened
    or another process leads the study.
    """
    if is_in_memory(storage_url):
        raise UserError(
            "search.parallel needs a database that other processes can open, not one in memory: "
            "set search.storage to sqlite:///FILE or to a server"
        )
    storage = open_storage(storage_url)
    with (
        locked_study(name, storage_url, storage, objectives) as study,
        held_lease(storage, study) as lease,
    ):
        study.set_user_attr(DONE, False)
        dead = DeadWorkers(Queue(study, storage, lease.owner))
        if lease.former is not None:
            dead.put_back_trials_of(lease.former)
        with repeated(dead.put_back_trials):
            yield Lead(dead.queue, lease)


def run_generations(lead: Lead, runner: TrialRunner, config: PlanConfig) -> list[FrozenTrial]:
    """Enqueues the missing trials and helps to evaluate them; returns the first `search.trials`.

    All warm starts are among them. An interrupted study ends like one that was not interrupted.
    """
    space, queue = runner.space, lead.queue
    total = max(config.search.trials, len(space.warm_starts))
    for position in track(range(total), "search"):
        while (trial := queue.trials().get(position)) is None or trial.state not in FINISHED:
            lead.lease.check()
            if trial is None:
                _enqueue(queue, space, config, position, total)
            elif not run_next(queue, runner):
                time.sleep(POLL_S)
    queue.study.set_user_attr(DONE, True)
    trials = queue.trials()
    return [trials[position] for position in range(total)]


def _enqueue(
    queue: Queue, space: SearchSpace, config: PlanConfig, position: int, total: int
) -> None:
    """Enqueues the missing trials of the generation of `position`, the first that is missing."""
    trials, warm = queue.trials(), len(space.warm_starts)
    if position < warm:
        generation = _warm_starts(space)
    else:
        size = config.search.parallel
        start = warm + (position - warm) // size * size
        generation = _asked(trials, space, config, range(start, min(start + size, total)))
    for trial in generation:
        if trial.user_attrs[POSITION] not in trials:
            queue.study.add_trial(trial)


def _warm_starts(space: SearchSpace) -> list[FrozenTrial]:
    return [
        create_trial(
            state=TrialState.WAITING,
            params=params,
            distributions={key: space.distributions[key] for key in params},
            user_attrs={POSITION: position, NAME: name, KNOWN: 0},
        )
        for position, (name, (params, _)) in enumerate(space.warm_starts.items())
    ]


def _asked(
    trials: Trials, space: SearchSpace, config: PlanConfig, positions: range
) -> list[FrozenTrial]:
    """The trials of a generation: of each, the sampler knows that those before it are running."""
    known = positions.start
    objectives = len(config.search.objective_names)
    study = optuna.create_study(directions=["minimize"] * objectives)
    study.add_trials(trials[position] for position in range(known))
    generation = []
    for position in positions:
        study.sampler = make_sampler(config.search.sampler, config.seed + position)
        asked = study.ask(space.distributions)
        attributes = study.get_trials(deepcopy=False)[asked.number].system_attrs
        generation.append(
            create_trial(
                state=TrialState.WAITING,
                params=asked.params,
                distributions=space.distributions,
                user_attrs={POSITION: position, NAME: TRIAL, KNOWN: known},
                system_attrs=attributes,
            )
        )
    return generation
