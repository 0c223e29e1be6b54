"""The importance of each search parameter, from the trials, by Optuna's own measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

MIN_TRIALS = 8
"""With fewer trials the importances are noise."""
BEST_SHARE = 0.25
"""Share of the trials that count as good."""
CATEGORICAL = ("slot_", "align_")
"""Prefixes of parameters whose numbers are labels: they have no order, or no distances."""


def parameter_importance(trials: Sequence[Mapping[str, Any]], objective: str) -> dict[str, float]:
    """Parameter -> its share of importance, largest first; empty for fewer than MIN_TRIALS.

    It is that for the values of one `objective`.

    PED-ANOVA (arXiv 2304.10255): how far the distribution of a parameter among the best quarter
    of the trials differs from that among all. Trials without all parameters are left out.
    """
    evaluated = [t for t in trials if t["values"][objective] is not None and t.get("params")]
    names = {name for trial in evaluated for name in trial["params"]}
    whole = [t for t in evaluated if set(t["params"]) == names]
    ranges = {name: _distribution(name, [t["params"][name] for t in whole]) for name in names}
    space = {name: values for name, values in sorted(ranges.items()) if not values.single()}
    if len(whole) < MIN_TRIALS or not space:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for trial in whole:
        params = {name: trial["params"][name] for name in space}
        value = trial["values"][objective]
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}


def _distribution(name: str, values: Sequence[Any]) -> BaseDistribution:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or not values or name.startswith(CATEGORICAL):
        return CategoricalDistribution(list(dict.fromkeys(values)) or [None])
    return FloatDistribution(min(numbers), max(numbers))
