"""What a search has to do: its inputs as objects, and what its trials are evaluated with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import optuna
from torch import Tensor

from adapruner.config import PlanConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.table import ImportanceTable
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.costs.costs import read_inputs
from adapruner.pruning.reconstruction import uses_gram_matrices
from adapruner.pruning.sensitivity import measure_sensitivity
from adapruner.pruning.target import PruningTarget
from adapruner.pruning.updates.gram_matrices import GramMatrices
from adapruner.pruning.updates.update import RIDGE
from adapruner.search.inputs import SearchInputs
from adapruner.search.trials.evaluator import Evaluation, Evaluator, IsHopeless, Planner
from adapruner.search.trials.objective import Objective, ObjectiveData
from adapruner.search.trials.space import PROTECTION_RANGE, SearchSpace, build_space, varies_widths

SENSITIVITY = "sensitivity:"
"""Prefix of the study's attributes with the sensitivity of a layer."""


def gram_matrices(
    inputs: SearchInputs, reconstruction: ReconstructionConfig
) -> GramMatrices | None:
    """The gram matrices, where the reconstruction uses them."""
    is_used = uses_gram_matrices(reconstruction.method)
    ridge = reconstruction.ridge or RIDGE
    return GramMatrices(inputs.gram_matrices, ridge) if is_used else None


@dataclass(frozen=True)
class TrialRunner:
    """The space of the trials, and what evaluates a recipe on the objective text."""

    space: SearchSpace
    evaluator: Evaluator
    objective: Objective

    def evaluate(self, recipe: Recipe, is_hopeless: IsHopeless | None = None) -> Evaluation:
        """Evaluates a recipe until `is_hopeless` is true, which several parts never are."""
        # The losses of one part say nothing about those of another.
        is_single = len(self.objective.parts) == 1
        return self.evaluator.evaluate(recipe, self.objective, is_hopeless if is_single else None)


@dataclass(frozen=True)
class SearchTask:
    """The inputs of a search without the model."""

    inputs: SearchInputs
    config: PlanConfig
    pool: Pool
    planner: Planner
    grams: GramMatrices | None

    @classmethod
    def read(cls, inputs: SearchInputs, config: PlanConfig) -> Self:
        """The task of these inputs and settings. Raises UserError for settings that don't fit."""
        structures = ckpt.inspect(inputs.checkpoint)
        costs = read_inputs(inputs.checkpoint, inputs.latency)
        target = PruningTarget(structures, config.pruning, costs)
        table = ImportanceTable.read(inputs.importance)
        grams = gram_matrices(inputs, config.reconstruction)
        return cls(inputs, config, Pool.read(inputs.pool), Planner(table, target), grams)

    def runner(self, model: Any, objective: Objective, study: optuna.Study) -> TrialRunner:
        """What runs the trials of `study` with the dense `model`.

        The sensitivity of the layers is cached in the study.
        """
        planner = replace(self.planner, sensitivity=self._sensitivity(model, study))
        space = build_space(planner.table, self.config, planner.extra_protection())
        return TrialRunner(space, Evaluator(planner, model, self.grams), objective)

    def objective(self, model: Any, *, held_out: bool = False) -> Objective:
        """The objective on the text of the trials, or on the held-out text."""
        windows = self.pool.held_out if held_out else self.pool.objective
        data = ObjectiveData(windows, self.inputs.checkpoint, self.inputs.objective_tasks, held_out)
        return Objective.of(model, data, self.config.search, self._first_cut_layer())

    def _first_cut_layer(self) -> int:
        """The first layer that a trial may cut."""
        protected = self.planner.target.protected
        first = next(i for i in range(len(protected) + 1) if i not in protected)
        return max(first - PROTECTION_RANGE * ("protection" in self.config.search.vary), 0)

    def _sensitivity(self, model: Any, study: optuna.Study) -> Tensor | None:
        """The sensitivity of each layer, where the space has widths."""
        if not varies_widths(self.config):
            return None
        cached = {
            int(key.removeprefix(SENSITIVITY)): row
            for key, row in study.user_attrs.items()
            if key.startswith(SENSITIVITY)
        }
        table = self.planner.table
        recipe = Recipe(samples=tuple(range(table.samples)), alpha_token=0.5)
        return measure_sensitivity(
            model,
            score(table, recipe).mlp,
            self.pool.objective,
            self.grams,
            cached,
            lambda layer, row: study.set_user_attr(f"{SENSITIVITY}{layer}", row),
        )
