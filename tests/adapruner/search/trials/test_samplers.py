"""Samplers by name."""

from __future__ import annotations

import optuna
import pytest

from adapruner.config.search import SAMPLERS
from adapruner.errors import UserError
from adapruner.search.trials.samplers import _SAMPLERS, check_sampler, make_sampler


def test_configuration_names_every_sampler() -> None:
    assert set(SAMPLERS) == set(_SAMPLERS)


@pytest.mark.parametrize("name", [*SAMPLERS, "optuna.samplers:QMCSampler"])
def test_named_sampler_is_seeded(name: str) -> None:
    def first_value(seed: int) -> float:
        study = optuna.create_study(sampler=make_sampler(name, seed))
        return study.ask().suggest_float("x", 0, 1)

    assert first_value(3) == first_value(3) != first_value(4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.module:Sampler", "can't be created"),
        ("json:loads", "can't be created"),
        (
            "tests.adapruner.search.trials.test_samplers:not_a_sampler",
            "returns a int, not an Optuna sampler",
        ),
    ],
)
def test_imported_name_that_is_no_sampler_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sampler(name, 0)


@pytest.mark.parametrize("name", [*SAMPLERS, "optuna.samplers:NSGAIISampler"])
def test_samplers_of_several_objectives_are_accepted(name: str) -> None:
    check_sampler(name, 3)


def test_a_sampler_of_one_objective_is_refused_for_several() -> None:
    with pytest.raises(UserError, match=r"'optuna\.samplers:CmaEsSampler' takes no 2 obj") as error:
        check_sampler("optuna.samplers:CmaEsSampler", 2)
    assert "\n" not in str(error.value) and "search.objective" in str(error.value)


def not_a_sampler(seed: int) -> int:
    return seed
