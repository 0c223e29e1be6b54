"""Which statistics of weight gradients the plans of a configuration read.

This module imports no torch: a pipeline is planned without it.
"""

from __future__ import annotations

from adapruner.config import PlanConfig, RunConfig
from adapruner.importance.metrics import METRICS
from adapruner.importance.terms import GRADIENT_GROUPS


def gradient_groups(config: PlanConfig | RunConfig) -> tuple[str, ...]:
    """The groups that a plan of `config` reads, in the order of `GRADIENT_GROUPS`.

    A search reads fisher, and the metric of one of its warm starts.
    """
    search, is_by_sample = config.search, config.pruning.allocation == "fluctuation"
    if search.planner != "importance":
        return ()
    needs = METRICS["element1" if search.is_searched else search.metric].needs
    needed = {*needs.statistics, *(needs.of_samples if is_by_sample else ())}
    if search.is_searched:
        needed |= {"fisher", *(("magnitude",) if "metrics" in search.vary else ())}
    return tuple(group for group in GRADIENT_GROUPS if group in needed)
