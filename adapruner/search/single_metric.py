"""A plan by one importance metric: no trial is run, its objective value is measured once."""

from __future__ import annotations

import time
from pathlib import Path

from adapruner.config.search import Fusion
from adapruner.evaluation.perplexity import perplexity
from adapruner.hashing import hash_file, hash_json
from adapruner.importance.metrics import METRICS
from adapruner.importance.recipe import Recipe, default_align
from adapruner.importance.table import ImportanceTable
from adapruner.models.streamed.choice import load_or_stream
from adapruner.progress import announce
from adapruner.pruning.surgery import narrowed
from adapruner.search.results import write_single_plan
from adapruner.search.trials.task import SearchTask


def plan_with_metric(task: SearchTask, out: Path) -> None:
    """Writes what a search writes, with one trial, updated where there are gram matrices.

    Raises UnreachableError when the ratio can't be reached, before the model is loaded.
    """
    config, table, grams = task.config, task.planner.table, task.grams
    metric, fusion = config.search.metric, config.search.fusion
    recipe = metric_recipe(metric, table, config.seed, fusion)
    windows = task.pool.objective
    provenance = {
        "method": metric,
        "seed": config.seed,
        "importance_sha256": hash_file(task.inputs.importance / ImportanceTable.FILE),
        "objective_sha256": hash_json(windows.tolist()),
        "recipe": recipe.model_dump(mode="json"),
    }
    start = time.perf_counter()
    plan = task.planner.plan(recipe, provenance)
    plan_s = time.perf_counter() - start
    announce(f"search: no trials, the importance metric is '{metric}'")
    model = load_or_stream(task.inputs.checkpoint, config.model, "2 reads")
    dense = perplexity(model, windows)
    start = time.perf_counter()
    with narrowed(model, plan, grams.updated_projections(model, plan) if grams else {}):
        pruned = perplexity(model, windows)
    seconds = {"plan_s": plan_s, "total_s": plan_s + time.perf_counter() - start}
    write_single_plan(out, plan, metric, (dense, pruned), windows.numel(), seconds)


def metric_recipe(
    metric: str, table: ImportanceTable, seed: int, fusion: Fusion = "layer_mean"
) -> Recipe:
    """The samples that a metric needs; `seed` is for the random metric, `fusion` for SAAP's."""
    on_reference = METRICS[metric].needs.samples == "reference"
    samples = table.reference if on_reference else tuple(range(table.samples))
    align = default_align(fusion)
    return Recipe(metric=metric, samples=samples, seed=seed, fusion=fusion, align=align)
