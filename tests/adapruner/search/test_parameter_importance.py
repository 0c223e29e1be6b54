"""Which search parameters explain the values of the trials."""

from __future__ import annotations

import random
from typing import Any

import pytest

from adapruner.search.parameter_importance import MIN_TRIALS, parameter_importance


def trials(count: int) -> list[dict[str, Any]]:
    """Trials whose value depends on `alpha` alone."""
    drawn = random.Random(0)
    params = [
        {"alpha": drawn.random(), "idle": drawn.random(), "slot_0": drawn.randrange(4), "fixed": 1}
        for _ in range(count)
    ]
    return [{"params": p, "values": {"kl": (p["alpha"] - 0.2) ** 2}} for p in params]


def test_the_parameter_that_decides_the_value_has_the_largest_share() -> None:
    shares = parameter_importance(trials(64), "kl")
    assert next(iter(shares)) == "alpha"
    assert shares["alpha"] > 0.5
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert "fixed" not in shares, "a parameter with one value explains nothing"


def test_few_trials_have_no_importances() -> None:
    assert parameter_importance(trials(MIN_TRIALS - 1), "kl") == {}
    assert parameter_importance([], "kl") == {}


def test_trials_without_a_value_or_without_all_parameters_do_not_count() -> None:
    whole = trials(32)
    partial = [{"params": p, "values": {"kl": 0.0}} for p in ({"alpha": 0.5}, {})]
    failed = [{**whole[0], "values": {"kl": None}}]
    shares = parameter_importance(whole, "kl")
    assert parameter_importance([*whole, *partial, *failed], "kl") == shares
