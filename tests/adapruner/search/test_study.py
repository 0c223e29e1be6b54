"""A study has one owner at a time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from adapruner.errors import UserError
from adapruner.search.study import lock_file, owned_study


def test_study_has_one_owner_at_a_time(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    with owned_study("ours", storage) as study:
        trial = study.ask()
        second = owned_study("ours", storage)
        with pytest.raises(UserError, match="another run is searching the study ours") as error:
            second.__enter__()
        assert "\n" not in str(error.value)
        with owned_study("another", storage):
            study.tell(trial, 1.0)  # the first owner continues
        study.ask()
    with owned_study("ours", storage) as study:
        states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL"], "unfinished trials of a former owner are failed"


def test_lock_of_a_database_server_depends_on_host_and_study_but_not_on_the_password() -> None:
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
