"""From a recipe to a plan, and from a plan to its losses on text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adapruner.errors import UserError
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score, score_with_fluctuation
from adapruner.importance.table import ImportanceTable
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.plan import PruningPlan, Update
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.target import PruningTarget
from adapruner.pruning.updates.gram_matrices import GramMatrices
from adapruner.search.front import Values
from adapruner.search.trials.objective import Objective
from adapruner.search.trials.space import PROTECTION_RANGE

IsHopeless = Callable[[list[float]], bool]
"""Takes the losses of the next windows; whether the evaluation can end."""


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
        by_fluctuation = target.pruning.allocation == "fluctuation"
        scores = (score_with_fluctuation if by_fluctuation else score)(self.table, recipe)
        plan = allocate(scores, target, provenance or {}, self.sensitivity, recipe.width_profile)
        update = Update(shares=recipe.update_shares, ridge=recipe.ridge)
        return plan.model_copy(update={"update": update})

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
class Evaluation:
    """The losses of the windows that were evaluated, and the seconds of planning and in all."""

    losses: list[float]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates recipes as updated models. `model` is the dense model, which stays unchanged."""

    planner: Planner
    model: Any
    grams: GramMatrices | None

    def evaluate(
        self, recipe: Recipe, objective: Objective, is_hopeless: IsHopeless | None = None
    ) -> Evaluation:
        """Evaluates the model that the recipe leads to, until `is_hopeless` is true."""
        start = time.perf_counter()
        plan = self.planner.plan(recipe)
        plan_s = time.perf_counter() - start
        down = self.grams.updated_projections(self.model, plan) if self.grams else {}
        losses: list[float] = []
        with narrowed(self.model, plan, down):
            for part in objective.losses(self.model):
                losses += part
                if is_hopeless is not None and is_hopeless(part):
                    break
        return Evaluation(losses, {"plan_s": plan_s, "total_s": time.perf_counter() - start})

    def values(self, recipe: Recipe, objective: Objective) -> Values:
        """The objective's values of the model that the recipe leads to."""
        return objective.values_of(self.evaluate(recipe, objective).losses)
