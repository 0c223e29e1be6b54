"""The samplers that `search.sampler` may name."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable

import optuna

from adapruner.errors import UserError, first_line

STARTUP_TRIALS = 8
"""Random trials before a sampler uses its model."""

_SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    "gp": lambda seed: optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, deterministic_objective=True
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The seeded sampler that search.sampler names. Raises UserError for one that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _SAMPLERS[name](seed) if name in _SAMPLERS else _imported_sampler(name, seed)


def check_sampler(name: str, objectives: int) -> None:
    """Raises UserError where search.sampler names none, or one that takes fewer objectives."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = make_sampler(name, 0)
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
    try:
        study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"search.sampler '{name}' takes no {objectives} objectives ({first_line(error)}): use "
            "gp, tpe or random, or one name or weights in search.objective"
        ) from None


def _imported_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    module, _, attribute = name.partition(":")
    try:
        sampler = getattr(importlib.import_module(module), attribute)(seed=seed)
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(
            f"search.sampler '{name}' can't be created ({error}): expected an importable "
            "callable that takes seed=... and returns an Optuna sampler"
        ) from None
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise UserError(
            f"search.sampler '{name}' returns a {type(sampler).__name__}, not an Optuna sampler"
        )
    return sampler
