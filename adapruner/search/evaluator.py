"""From a recipe to a plan, and from a plan to its value on text."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adapruner.errors import UserError
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.table import ImportanceTable
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.gram_matrices import GramMatrices
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.target import PruningTarget
from adapruner.search.objective import Objective
from adapruner.search.space import PROTECTION_RANGE


@dataclass(frozen=True)
class Planner:
    """Plans recipes. No model is needed. `sensitivity`: see `pruning.sensitivity`."""

    table: ImportanceTable
    target: PruningTarget
    sensitivity: Tensor | None = None

    def plan(self, recipe: Recipe, provenance: dict[str, Any] | None = None) -> PruningPlan:
        """The plan of a recipe. Raises UnreachableError where it misses the target's ratio."""
        target = (
            self.target if recipe.protect is None else self.target.with_protection(*recipe.protect)
        )
        scores = score(self.table, recipe)
        return allocate(scores, target, provenance or {}, self.sensitivity, recipe.width_profile)

    def extra_protection(self) -> int:
        """How many more layers can be protected at each end, up to PROTECTION_RANGE."""
        pruning = self.target.pruning
        for extra in range(PROTECTION_RANGE, 0, -1):
            protect = (pruning.protect_first + extra, pruning.protect_last + extra)
            try:
                self.plan(Recipe(samples=(0,), protect=protect))
            except UserError:
                continue
            return extra
        return 0


@dataclass(frozen=True)
class Evaluator:
    """Evaluates recipes as updated models. `model` is the dense model, which stays unchanged."""

    planner: Planner
    model: Any
    grams: GramMatrices | None

    def value(self, recipe: Recipe, objective: Objective) -> float:
        """The objective's value of the model that the recipe leads to."""
        return self._value_of_plan(self.planner.plan(recipe), objective)

    def timed_value(self, recipe: Recipe, objective: Objective) -> tuple[float, dict[str, float]]:
        """`value`, and the seconds `plan_s` (planning) and `total_s` (planning and evaluation)."""
        start = time.perf_counter()
        plan = self.planner.plan(recipe)
        plan_s = time.perf_counter() - start
        value = self._value_of_plan(plan, objective)
        return value, {"plan_s": plan_s, "total_s": time.perf_counter() - start}

    def _value_of_plan(self, plan: PruningPlan, objective: Objective) -> float:
        down = self.grams.updated_projections(self.model, plan) if self.grams else {}
        return objective.value_of_plan(self.model, plan, down)
