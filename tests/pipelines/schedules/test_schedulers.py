"""The table of schedulers, `pipelines/schedules/__init__.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from adapruner.errors import UserError
from pipelines.schedules import SCHEDULERS, Scheduler, default_scheduler, scheduler, systemd
from tests.pipelines.schedules.users import scheduled


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_has_the_functions_of_the_protocol(name: str) -> None:
    functions = {k: f for k, f in vars(Scheduler).items() if inspect.isfunction(f) and k[0] != "_"}
    assert {"available", "preview", "install", "remove", "installed"} <= set(functions)
    for function, wanted in functions.items():
        signature = inspect.signature(getattr(scheduler(name), function))
        _self, *parameters = inspect.signature(wanted).parameters
        assert list(signature.parameters) == parameters
        assert signature.return_annotation == inspect.signature(wanted).return_annotation


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_is_previewed_installed_listed_and_removed(home: Path, name: str) -> None:
    chosen, schedule = scheduler(name), scheduled(home)
    assert chosen.preview(schedule)
    assert chosen.installed() == []
    chosen.install(schedule)
    (row,) = chosen.installed()
    assert (row.name, row.scheduler) == ("nightly", name)
    assert chosen.remove("nightly")
    assert not chosen.remove("nightly")
    assert chosen.installed() == []


def test_the_default_is_a_scheduler_that_runs_here(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not systemd.available()
    assert default_scheduler() == "crontab"
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(UserError, match="--watch"):
        default_scheduler()
