"""Studies have one owner at a time; samplers are named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from adapruner.errors import UserError
from adapruner.search.study import lock_file, owned_study, sampler_of


def test_a_study_has_one_owner_at_a_time(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    with owned_study("ours", storage) as study:
        trial = study.ask()
        second = owned_study("ours", storage)
        with pytest.raises(UserError, match="another run is searching the study ours") as error:
            second.__enter__()
        assert "\n" not in str(error.value)
        with owned_study("another", storage):
            study.tell(trial, 1.0)  # the first owner goes on undisturbed
        study.ask()
    with owned_study("ours", storage) as study:
        states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL"], "what an owner left unfinished counts as failed"


def test_the_lock_of_a_database_server_is_told_apart_but_not_by_its_password() -> None:
    files = [
        lock_file(name, f"postgresql+psycopg2://user:{password}@{host}:5432/studies")
        for name, password, host in (
            ("a", "one", "here"), ("a", "two", "here"), ("a", "one", "there"), ("b", "one", "here"),
        )
    ]  # fmt: skip
    assert {file.parent for file in files} == {Path(tempfile.gettempdir())}
    assert files[0] == files[1]
    assert len(set(files)) == 3
    assert lock_file("a", "sqlite://") != files[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.module:Sampler", "can't be made"),
        ("json:loads", "can't be made"),
        ("tests.adapruner.test_study:not_a_sampler", "gives a int, no Optuna sampler"),
    ],
)
def test_a_sampler_of_ones_own_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampler_of(name, 0)


def not_a_sampler(seed: int) -> int:
    return seed
