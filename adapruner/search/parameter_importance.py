"""Which parameters of the search mattered: read from its trials, by Optuna's own measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

LEAST_TRIALS = 8
"""Fewer trials with all parameters say nothing about any of them."""
BEST_SHARE = 0.25
"""Share of the trials that count as the good ones."""
NAMES_OF_THINGS = ("slot_", "align_")
"""Parameters whose numbers name things or steps: they have no order, or no distances."""


def parameter_importance(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Parameter -> its share of importance, largest first; empty where too few trials tell.

    PED-ANOVA (arXiv 2304.10255): how far the distribution of a parameter among the best quarter
    of the trials differs from that among all. Trials without all parameters are left out.
    """
    known = [t for t in trials if t.get("value") is not None and t.get("params")]
    names = {name for trial in known for name in trial["params"]}
    whole = [t for t in known if set(t["params"]) == names]
    space = {name: _distribution(name, [t["params"][name] for t in whole]) for name in names}
    space = {name: found for name, found in sorted(space.items()) if not found.single()}
    if len(whole) < LEAST_TRIALS or not space:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for trial in whole:
        params = {name: trial["params"][name] for name in space}
        study.add_trial(
            optuna.create_trial(params=params, distributions=space, value=trial["value"])
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _distribution(name: str, values: Sequence[Any]) -> BaseDistribution:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or not values or name.startswith(NAMES_OF_THINGS):
        return CategoricalDistribution(list(dict.fromkeys(values)) or [None])
    return FloatDistribution(min(numbers), max(numbers))
