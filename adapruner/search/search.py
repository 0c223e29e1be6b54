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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from torch import Tensor

from adapruner.config import PlanConfig
from adapruner.config.pruning import AFTER_TRIALS
from adapruner.data.pool import Pool
from adapruner.dependencies import source_files
from adapruner.hashing import hash_directory, hash_file, hash_json
from adapruner.importance.recipe import Recipe
from adapruner.importance.table import ImportanceTable
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.choice import load_or_stream
from adapruner.progress import announce, track
from adapruner.pruning.allocation.width_profile import REMOVED
from adapruner.search.front import Values, best, front, nearest_to_ideal
from adapruner.search.inputs import SearchInputs
from adapruner.search.parallel.generations import Lead, led_study, run_generations
from adapruner.search.parallel.publication import publish
from adapruner.search.results import (
    HeldOut,
    SearchResult,
    SelectedTrial,
    Sensitivity,
    named,
    trial_rows,
    write_results,
)
from adapruner.search.single_metric import plan_with_metric
from adapruner.search.trials.evaluator import Evaluator, Planner
from adapruner.search.trials.objective import Objective
from adapruner.search.trials.samplers import check_sampler
from adapruner.search.trials.study import TRIAL, is_stopped, owned_study, run_trials
from adapruner.search.trials.task import SearchTask, TrialRunner

RunMissing = Callable[[TrialRunner], list[FrozenTrial]]


def search(inputs: SearchInputs, config: PlanConfig, storage: str, out: Path) -> None:
    """Writes the selected plan, the trials and their summary to `out`, see `results`.

    `storage` is an Optuna storage URL. Raises UserError when the ratio can't be reached, the
    sampler can't be used or another process owns the study, before the model is loaded.
    """
    task = SearchTask.read(inputs, config)
    if not config.search.is_searched:
        plan_with_metric(task, out)
        return
    table = task.planner.table
    task.planner.plan(Recipe(samples=tuple(range(table.samples))))
    objectives = len(config.search.objective_names)
    check_sampler(config.search.sampler, objectives)
    dependencies = study_dependencies(inputs, task.pool, config)
    name = f"adapruner-{hash_json(dependencies)[:16]}"
    with _study(task, name, storage) as (study, run_missing):
        outcome = _run(task, study, run_missing)
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
        "reconstruction": config.reconstruction.model_dump(exclude=set(AFTER_TRIALS)),
        "seed": config.seed,
        "code": [hash_file(file) for file in source_files(__name__, ("adapruner",))],
    }


@dataclass(frozen=True)
class _Outcome:
    """The finished trials, their held-out values by number, and the values of the dense model."""

    trials: list[FrozenTrial]
    held_out_values: dict[int, Values]
    planner: Planner
    pool: Pool
    dense_values: Values
    dense_held_out: Values


@contextmanager
def _study(task: SearchTask, name: str, storage: str) -> Iterator[tuple[optuna.Study, RunMissing]]:
    """The study, and what runs its missing trials: one after the other, or in generations."""
    config = task.config
    objectives = len(config.search.objective_names)
    if config.search.parallel > 1:
        with led_study(name, storage, objectives) as lead:
            yield lead.study, lambda runner: _run_shared(lead, task, runner)
        return
    with owned_study(name, storage, objectives) as study:
        yield (
            study,
            lambda runner: run_trials(
                study,
                runner.space,
                config.search,
                config.seed,
                runner.evaluate,
                runner.objective.values_of,
            ),
        )


def _run_shared(lead: Lead, task: SearchTask, runner: TrialRunner) -> list[FrozenTrial]:
    # Workers find the sensitivities in the study, so they may not join before these are complete.
    publish(lead.study, task.inputs, task.config)
    return run_generations(lead, runner, task.config)


def _run(task: SearchTask, study: optuna.Study, run_missing: RunMissing) -> _Outcome:
    """Runs the missing trials, and evaluates the best ones on the held-out text."""
    config = task.config
    model = load_or_stream(task.inputs.checkpoint, config.model, "1 read for each trial")
    start = time.perf_counter()
    objective = task.objective(model)
    seconds = time.perf_counter() - start
    trial = f"about a dense pass of {seconds:.0f} s" + (" and an update" if task.grams else "")
    announce(f"search: {config.search.trials} trials, each {trial}: {study.study_name}")
    runner = task.runner(model, objective, study)
    finished = run_missing(runner)
    held_out = task.objective(model, held_out=True)
    values = _held_out_values(finished, study, config, runner.evaluator, held_out)
    planner = runner.evaluator.planner
    return _Outcome(finished, values, planner, task.pool, objective.dense, held_out.dense)


def _held_out_values(
    trials: list[FrozenTrial],
    study: optuna.Study,
    config: PlanConfig,
    evaluator: Evaluator,
    held_out: Objective,
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
    finalists = best(others, config.search.finalists)
    values = {}
    for number in track([*warm, *finalists], "held-out text"):
        recipe = Recipe.model_validate_json(trials[number].user_attrs["recipe"])
        key = f"held_out:{hash_json(recipe.model_dump(mode='json'))[:16]}"
        cached = study.user_attrs.get(key)
        values[number] = tuple(cached) if cached else evaluator.values(recipe, held_out)
        study.set_user_attr(key, values[number])
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
