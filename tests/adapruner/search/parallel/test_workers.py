"""One plan, whatever the number of workers, the order in which they end, and their deaths."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import optuna
import pytest

from adapruner.config import PlanConfig
from adapruner.search.inputs import SearchInputs
from adapruner.search.search import search
from tests.adapruner.search.parallel.processes import (
    Meeting,
    ended,
    lead,
    start,
    wait_for,
    worker,
)

FILES = ("plan.json", "trials.json", "search.json")


def results(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def alone(
    inputs: SearchInputs, config: PlanConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The results of a lead without workers."""
    out = tmp_path_factory.mktemp("alone")
    search(inputs, config, f"sqlite:///{out / 'studies.db'}", out)
    return results(out)


def trials(storage: str) -> list[optuna.trial.FrozenTrial]:
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


def evaluated(storage: str) -> Counter[str]:
    """Process -> number of trials that it evaluated."""
    return Counter(trial.user_attrs["beat"].partition(":")[0] for trial in trials(storage))


@pytest.mark.parametrize("count", [2, 3])
def test_workers_do_not_change_the_plan(
    count: int,
    inputs: SearchInputs,
    config: PlanConfig,
    storage: str,
    alone: dict[str, bytes],
    tmp_path: Path,
) -> None:
    files = tuple(tmp_path / f"met{number}" for number in range(count))
    meetings = [Meeting(file, files) for file in files]
    processes = [
        start(lead, meetings[0], inputs, config, storage, tmp_path / "out"),
        *(start(worker, meeting, storage) for meeting in meetings[1:]),
    ]
    assert [ended(process) for process in processes] == [0] * count
    assert len(evaluated(storage)) == count, "each has evaluated trials"
    assert results(tmp_path / "out") == alone


@pytest.mark.slow
def test_a_killed_worker_costs_its_trial_alone(
    inputs: SearchInputs,
    config: PlanConfig,
    storage: str,
    alone: dict[str, bytes],
    tmp_path: Path,
) -> None:
    reached = tmp_path / "reached"
    leading = start(
        lead, Meeting(tmp_path / "met", (reached,)), inputs, config, storage, tmp_path / "out"
    )
    killed = start(worker, Meeting(reached, hangs=True), storage)
    wait_for(reached, killed)
    os.kill(killed.pid or 0, signal.SIGKILL)
    assert ended(leading) == 0
    assert len(evaluated(storage)) == 1
    assert results(tmp_path / "out") == alone


@pytest.mark.slow
def test_another_lead_goes_on_when_the_lease_of_a_killed_one_has_expired(
    inputs: SearchInputs,
    config: PlanConfig,
    storage: str,
    alone: dict[str, bytes],
    tmp_path: Path,
) -> None:
    reached, out = tmp_path / "reached", tmp_path / "out"
    killed = start(lead, Meeting(reached, trial=6, hangs=True), inputs, config, storage, out)
    wait_for(reached, killed)
    os.kill(killed.pid or 0, signal.SIGKILL)
    before = [trial.number for trial in trials(storage) if trial.state.is_finished()]
    assert 5 < len(before) < config.search.trials
    assert ended(start(lead, Meeting(tmp_path / "met"), inputs, config, storage, out)) == 0
    assert sorted(evaluated(storage).values()) == sorted(
        [len(before), config.search.trials - len(before)]
    )
    assert results(out) == alone


def test_sigterm_gives_the_trial_back(
    inputs: SearchInputs, config: PlanConfig, storage: str, tmp_path: Path
) -> None:
    reached, out = tmp_path / "reached", tmp_path / "out"
    leading = start(lead, Meeting(tmp_path / "met", hangs=True), inputs, config, storage, out)
    stopped = start(worker, Meeting(reached, hangs=True), storage)
    wait_for(reached, stopped)
    assert [trial.state.name for trial in trials(storage)].count("RUNNING") == 2
    os.kill(stopped.pid or 0, signal.SIGTERM)
    assert ended(stopped) == 128 + signal.SIGTERM
    assert [trial.state.name for trial in trials(storage)].count("RUNNING") == 1
    leading.kill()


def test_more_trials_continue_a_study_as_if_there_had_been_no_end(
    inputs: SearchInputs, config: PlanConfig, alone: dict[str, bytes], tmp_path: Path
) -> None:
    fewer = config.model_copy(update={"search": config.search.model_copy(update={"trials": 9})})
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    for settings in (fewer, config):
        search(inputs, settings, storage, tmp_path)
    assert results(tmp_path) == alone
