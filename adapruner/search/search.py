"""The Bayesian search over the mix of calibration domains, importance metrics and width profiles.

Each trial scores the structures, plans, cuts and updates like the final model, and is evaluated on
the objective text. The study is stored: an interrupted search continues where it stopped and ends
with the same plan.

Many trials on one text also fit that text alone. So the best trials and all warm starts are
evaluated again on held-out text that no trial has seen, and the lowest value there is selected; of
several objectives, the value nearest to the ideal point, see `front`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from torch import Tensor

from adapruner.config import PlanConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.dependencies import source_files
from adapruner.hashing import hash_directory, hash_file, hash_json
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.table import ImportanceTable
from adapruner.models import checkpoint as ckpt
from adapruner.models.streamed.choice import load_or_stream
from adapruner.progress import announce, track
from adapruner.pruning.allocation.width_profile import REMOVED
from adapruner.pruning.costs.costs import read_inputs
from adapruner.pruning.gram_matrices import GramMatrices
from adapruner.pruning.reconstruction import uses_gram_matrices
from adapruner.pruning.sensitivity import measure_sensitivity
from adapruner.pruning.target import PruningTarget
from adapruner.pruning.update import RIDGE
from adapruner.search.evaluator import Evaluator, Planner
from adapruner.search.front import Values, best, front, nearest_to_ideal
from adapruner.search.inputs import SearchInputs
from adapruner.search.objective import Objective, ObjectiveData
from adapruner.search.results import (
    HeldOut,
    SearchResult,
    SelectedTrial,
    Sensitivity,
    named,
    trial_rows,
    write_results,
)
from adapruner.search.samplers import check_sampler
from adapruner.search.single_metric import plan_with_metric
from adapruner.search.space import PROTECTION_RANGE, build_space, varies_widths
from adapruner.search.study import TRIAL, is_stopped, owned_study, run_trials


def search(inputs: SearchInputs, config: PlanConfig, storage: str, out: Path) -> None:
    """Writes the selected plan, the trials and their summary to `out`, see `results`.

    `storage` is an Optuna storage URL. Raises UserError when the ratio can't be reached, the
    sampler can't be used or another process owns the study, before the model is loaded.
    """
    table = ImportanceTable.read(inputs.importance)
    structures = ckpt.inspect(inputs.checkpoint)
    costs = read_inputs(inputs.checkpoint, inputs.latency)
    target = PruningTarget(structures, config.pruning, costs)
    if not config.search.is_searched:
        grams = gram_matrices(inputs, config.reconstruction)
        plan_with_metric(inputs, config, table, target, grams, out)
        return
    planner = Planner(table, target)
    planner.plan(Recipe(samples=tuple(range(table.samples))))
    objectives = len(config.search.objective_names)
    check_sampler(config.search.sampler, objectives)
    pool = Pool.read(inputs.pool)
    dependencies = study_dependencies(inputs, pool, config)
    name = f"adapruner-{hash_json(dependencies)[:16]}"
    with owned_study(name, storage, objectives) as study:
        grams = gram_matrices(inputs, config.reconstruction)
        run = _Search(inputs, config, pool, study, planner, grams)
        dense = load_or_stream(inputs.checkpoint, config.model, "1 read for each trial")
        outcome = run.execute(dense)
    provenance = {
        "method": "adapruner",
        "study": name,
        "seed": config.seed,
        "importance_sha256": dependencies["importance"],
        "objective_sha256": dependencies["objective"],
    }
    _write(outcome, config, provenance, out)


def study_dependencies(inputs: SearchInputs, pool: Pool, config: PlanConfig) -> dict[str, Any]:
    """Everything that the trials' values depend on, as JSON. A study is for one such value."""
    search = config.search.model_dump(exclude={"trials", "storage", "finalists", "rows_dir"})
    return {
        "importance": hash_file(inputs.importance / ImportanceTable.FILE),
        "objective": hash_json(pool.objective.tolist()),
        "held_out": hash_json(pool.held_out.tolist()),
        "tasks": hash_directory(inputs.objective_tasks),
        "latency": hash_directory(inputs.latency) if inputs.latency else None,
        "update": hash_json([pool.update.tolist(), pool.domain.tolist()]),
        "device": str(ckpt.device_of(config.model)),
        "dtype": ckpt.compute_dtype(config.model),
        "search": search,
        "pruning": config.pruning.model_dump(),
        "reconstruction": config.reconstruction.model_dump(exclude={"epochs"}),
        "seed": config.seed,
        "code": [hash_file(file) for file in source_files(__name__, ("adapruner",))],
    }


def gram_matrices(
    inputs: SearchInputs, reconstruction: ReconstructionConfig
) -> GramMatrices | None:
    """The gram matrices, where the reconstruction uses them."""
    is_used = uses_gram_matrices(reconstruction.method)
    ridge = reconstruction.ridge or RIDGE
    return GramMatrices(inputs.gram_matrices, ridge) if is_used else None


@dataclass(frozen=True)
class _Outcome:
    """The finished trials, their held-out values by number, and the values of the dense model."""

    trials: list[FrozenTrial]
    held_out_values: dict[int, Values]
    planner: Planner
    pool: Pool
    dense_values: Values
    dense_held_out: Values


@dataclass(frozen=True)
class _Search:
    """One search on an open study."""

    inputs: SearchInputs
    config: PlanConfig
    pool: Pool
    study: optuna.Study
    planner: Planner
    grams: GramMatrices | None

    def execute(self, model: Any) -> _Outcome:
        """Runs the missing trials with the dense `model`."""
        search, pool = self.config.search, self.pool
        first = self._first_cut_layer()
        start = time.perf_counter()
        data = ObjectiveData(pool.objective, self.inputs.checkpoint, self.inputs.objective_tasks)
        objective = Objective.of(model, data, search, first)
        seconds = time.perf_counter() - start
        announce(
            f"search: {search.trials} trials, each up to {seconds:.0f} s: {self.study.study_name}"
        )
        planner = replace(self.planner, sensitivity=self._sensitivity(model))
        evaluator = Evaluator(planner, model, self.grams)
        trials = run_trials(
            self.study,
            build_space(planner.table, self.config, planner.extra_protection()),
            search,
            self.config.seed,
            # The losses of one part say nothing about those of another.
            lambda recipe, is_hopeless: evaluator.evaluate(
                recipe, objective, is_hopeless if len(objective.parts) == 1 else None
            ),
            objective.values_of,
        )
        held_out_data = replace(data, windows=pool.held_out, held_out=True)
        held_out = Objective.of(model, held_out_data, search, first)
        values = self._held_out_values(trials, evaluator, held_out)
        return _Outcome(trials, values, planner, pool, objective.dense, held_out.dense)

    def _first_cut_layer(self) -> int:
        """The first layer that a trial may cut."""
        protected = self.planner.target.protected
        first = next(i for i in range(len(protected) + 1) if i not in protected)
        return max(first - PROTECTION_RANGE * ("protection" in self.config.search.vary), 0)

    def _sensitivity(self, model: Any) -> Tensor | None:
        """The sensitivity of each layer, where the space has widths. Cached in the study."""
        if not varies_widths(self.config):
            return None
        prefix = "sensitivity:"
        cached = {
            int(key.removeprefix(prefix)): row
            for key, row in self.study.user_attrs.items()
            if key.startswith(prefix)
        }
        table = self.planner.table
        recipe = Recipe(samples=tuple(range(table.samples)), alpha_token=0.5)
        return measure_sensitivity(
            model,
            score(table, recipe).mlp,
            self.pool.objective,
            self.grams,
            cached,
            lambda layer, row: self.study.set_user_attr(f"{prefix}{layer}", row),
        )

    def _held_out_values(
        self, trials: list[FrozenTrial], evaluator: Evaluator, held_out: Objective
    ) -> dict[int, Values]:
        """Trial number -> held-out values, of the warm starts and the finalists.

        Values are cached in the study, so that an interrupted search continues here, too.
        """
        warm = [n for n, trial in enumerate(trials) if trial.user_attrs["name"] != TRIAL]
        others = {
            n: tuple(trial.values)
            for n, trial in enumerate(trials)
            if n not in warm and not is_stopped(trial)
        }
        finalists = best(others, self.config.search.finalists)
        values = {}
        for number in track([*warm, *finalists], "held-out text"):
            recipe = Recipe.model_validate_json(trials[number].user_attrs["recipe"])
            key = f"held_out:{hash_json(recipe.model_dump(mode='json'))[:16]}"
            cached = self.study.user_attrs.get(key)
            values[number] = tuple(cached) if cached else evaluator.values(recipe, held_out)
            self.study.set_user_attr(key, values[number])
        return values


def _write(outcome: _Outcome, config: PlanConfig, provenance: dict[str, Any], out: Path) -> None:
    """Selects a trial by the held-out values and writes the results."""
    values, names = outcome.held_out_values, config.search.objective_names
    chosen = nearest_to_ideal(values)
    rows = trial_rows(outcome.trials, names, values)
    warm = [row for row in rows if row.name != TRIAL]
    held_out = HeldOut(
        dense_values=named(names, outcome.dense_held_out),
        values=named(names, values[chosen]),
        warm_starts={row.name: named(names, values[row.number]) for row in warm},
        front=tuple(front(values)),
    )
    result = SearchResult(
        objectives=names,
        objective_tokens=outcome.pool.objective.numel(),
        held_out_tokens=outcome.pool.held_out.numel(),
        dense_values=named(names, outcome.dense_values),
        study=provenance["study"],
        best=SelectedTrial(**rows[chosen].model_dump(include={*SelectedTrial.model_fields})),
        warm_starts={row.name: row.values for row in warm},
        held_out=held_out,
        sensitivity=_sensitivity_rows(outcome.planner.sensitivity),
        trials=len(rows),
    )
    recipe = Recipe.model_validate_json(outcome.trials[chosen].user_attrs["recipe"])
    origin = {
        "trial": chosen,
        "values": result.best.values,
        "held_out": held_out.values,
        "recipe": recipe.model_dump(mode="json"),
    }
    plan = outcome.planner.plan(recipe, provenance | origin)
    seconds = [trial.user_attrs["seconds"] for trial in outcome.trials]
    write_results(out, plan, rows, result, seconds)


def _sensitivity_rows(sensitivity: Tensor | None) -> Sensitivity | None:
    if sensitivity is None:
        return None
    return Sensitivity(removed=REMOVED, losses=sensitivity.tolist())
