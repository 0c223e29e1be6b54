"""The trials of a study as a queue: claimed, evaluated, finished, and put back.

A trial waits, with its parameters, its position in the study and the number of earlier trials that
it may be compared with. Its worker's signs of life are an attribute, observed as in `lease`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from adapruner.search.parallel import lease
from adapruner.search.trials.study import OUTSIDE, assess, attributes
from adapruner.search.trials.task import TrialRunner

POSITION, NAME, KNOWN, BEAT = "position", "name", "known", "beat"
FINISHED = (TrialState.COMPLETE, OUTSIDE)

Trials = Mapping[int, FrozenTrial]
"""Position -> trial."""


@dataclass(frozen=True)
class Queue:
    """The trials of a study, as the process `owner` uses them."""

    study: optuna.Study
    storage: RDBStorage
    owner: str

    def trials(self) -> Trials:
        """All trials. Of several at one position, which are equal, the first counts."""
        trials: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            trials.setdefault(trial.user_attrs[POSITION], trial)
        return trials

    def claim(self, trials: Trials) -> FrozenTrial | None:
        """Makes the first trial that waits one of this process."""
        for _, trial in sorted(trials.items()):
            if trial.state == TrialState.WAITING:
                with suppress(UpdateFinishedTrialError):
                    if self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                        return trial
        return None

    @contextmanager
    def alive(self, trial: FrozenTrial) -> Iterator[None]:
        """Shows that the trial's worker lives while the block runs."""
        beats = 0

        def beat() -> None:
            nonlocal beats
            beats += 1
            self.storage.set_trial_user_attr(trial._trial_id, BEAT, f"{self.owner}:{beats}")

        beat()
        with lease.repeated(beat):
            yield

    def put_back(self, trial_id: int) -> None:
        """Lets the trial wait again, unless it is finished."""
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def running(self) -> dict[int, str]:
        """ID -> last sign of life, of the trials that workers evaluate."""
        study_id, states = self.study._study_id, (TrialState.RUNNING,)
        trials = self.storage.get_all_trials(study_id, deepcopy=False, states=states)
        return {trial._trial_id: trial.user_attrs.get(BEAT, "") for trial in trials}


@dataclass
class DeadWorkers:
    """Puts back the trials of dead workers."""

    queue: Queue
    seen: dict[int, tuple[str, float]] = field(default_factory=dict)

    def put_back_trials(self) -> None:
        """To be called every few seconds: puts back trials without a recent sign of life."""
        now, seen = time.monotonic(), self.seen
        self.seen = {
            trial: seen[trial] if seen.get(trial, ("",))[0] == beat else (beat, now)
            for trial, beat in self.queue.running().items()
        }
        for trial, (_, since) in self.seen.items():
            if now - since > lease.EXPIRY_S:
                self.queue.put_back(trial)

    def put_back_trials_of(self, owner: str) -> None:
        """Puts back the trials of one process, which is dead."""
        for trial, beat in self.queue.running().items():
            if beat.startswith(f"{owner}:"):
                self.queue.put_back(trial)


def run_next(queue: Queue, runner: TrialRunner) -> bool:
    """Evaluates the first trial that waits; whether there was one.

    If this ends early, the trial waits again.
    """
    trials = queue.trials()
    trial = queue.claim(trials)
    if trial is None:
        return False
    try:
        with queue.alive(trial):
            _run(queue, runner, trial, trials)
    except UpdateFinishedTrialError:
        pass  # this process was suspended, and another one has finished the trial
    except BaseException:
        queue.put_back(trial._trial_id)
        raise
    return True


def _run(queue: Queue, runner: TrialRunner, trial: FrozenTrial, trials: Trials) -> None:
    name, storage, trial_id = trial.user_attrs[NAME], queue.storage, trial._trial_id
    is_single = len(queue.study.directions) == 1
    warm = runner.space.warm_starts.get(name)
    recipe = warm.recipe if warm else runner.space.recipe(trial.params)
    reference = None if warm or not is_single else _best(trials, trial.user_attrs[KNOWN])

    def report(loss: float, step: int) -> None:
        storage.set_trial_intermediate_value(trial_id, step, loss)

    assessed = assess(recipe, reference, runner.evaluate, report)
    if warm and is_single:
        for step, loss in enumerate(assessed.losses):
            report(loss, step)
    for key, value in attributes(name, recipe, assessed).items():
        storage.set_trial_user_attr(trial_id, key, value)
    is_outside = runner.space.distributions and warm and not warm.params
    state = OUTSIDE if is_outside else TrialState.COMPLETE
    values = runner.objective.values_of(assessed.losses)
    storage.set_trial_state_values(trial_id, state, values)


def _best(trials: Trials, known: int) -> FrozenTrial | None:
    """The best of the first `known` trials: of the generations before that of the trial."""
    earlier = [t for n, t in sorted(trials.items()) if n < known and t.state == TrialState.COMPLETE]
    return min(earlier, key=lambda trial: trial.values[0], default=None)
