"""The plan of a run, by the planner that the settings name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from adapruner.config import PlanConfig
from adapruner.search import PLANNERS
from adapruner.search.inputs import SearchInputs


def search(inputs: SearchInputs, config: PlanConfig, storage: str, out: Path) -> None:
    """Writes the plan, the trials and their summary to `out`, see `results`.

    `storage` is an Optuna storage URL, for a planner with trials. Raises UserError for settings
    that lead to no plan, before the model is loaded.
    """
    import_module(PLANNERS[config.search.planner]).search(inputs, config, storage, out)
