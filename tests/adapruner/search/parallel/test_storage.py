"""Databases that several processes open at once, and those that can't be opened."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from adapruner.config import PlanConfig
from adapruner.errors import UserError
from adapruner.search.inputs import SearchInputs
from adapruner.search.parallel.queue import POSITION, Queue
from adapruner.search.parallel.storage import open_storage
from adapruner.search.search import search
from tests.adapruner.search.parallel.processes import ended, start

PASSWORD = "s3cret-word"
TRIALS = 30


def claim_all(storage: str, owner: str, out: Path) -> None:
    """Opens the database, which may be empty, adds trials, and claims what waits."""
    opened = open_storage(storage)
    study = optuna.create_study(study_name="shared", storage=opened, load_if_exists=True)
    if owner == "0":
        for position in range(TRIALS):
            attributes = {POSITION: position}
            study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=attributes))
    queue = Queue(study, opened, owner)
    claimed = list[int]()
    while sum(trial.state == TrialState.RUNNING for trial in study.trials) < TRIALS:
        if (trial := queue.claim(queue.trials())) is not None:
            claimed.append(trial.number)
    out.write_text(" ".join(map(str, claimed)))


def test_processes_that_open_an_empty_database_claim_each_trial_once(
    storage: str, tmp_path: Path
) -> None:
    files = [tmp_path / f"claimed{number}" for number in range(3)]
    processes = [start(claim_all, storage, str(n), file) for n, file in enumerate(files)]
    assert [ended(process) for process in processes] == [0, 0, 0]
    claimed = [int(number) for file in files for number in file.read_text().split()]
    assert sorted(claimed) == list(range(TRIALS))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"postgresql://me:{PASSWORD}@host/s", "'psycopg2-binary'"),
        (f"mysql://me:{PASSWORD}@host/s", "'mysqlclient'"),
        (f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:9/s", "can't be opened"),
        (f"mongodb://me:{PASSWORD}@host/s", "postgresql+psycopg://"),
        (f"me:{PASSWORD}@host", "can't be opened"),
    ],
)
def test_a_storage_that_can_not_be_opened_is_one_line_without_the_password(
    url: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        open_storage(url)
    assert message in str(error.value)
    assert "search.storage" in str(error.value)
    assert PASSWORD not in str(error.value) and "\n" not in str(error.value)


def test_a_database_in_memory_can_not_be_shared(
    inputs: SearchInputs, config: PlanConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"search\.parallel needs a database"):
        search(inputs, config, "sqlite://", tmp_path)
