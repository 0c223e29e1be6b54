"""A plan by one fixed score: no trial is run, its objective value is measured once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from adapruner.pruning import allocation, plan, surgery
from adapruner.importance import statistics as importance, scores as scoring
from adapruner.models import checkpoint as ckpt
from adapruner.config import FixedMetric, ModelConfig, PruningConfig
from adapruner.hashing import hash_file, hash_json
from adapruner.importance.statistics import ImportanceTable
from adapruner.evaluation.perplexity import perplexity
from adapruner.progress import announce
from adapruner.importance.scores import Recipe
from adapruner.search.results import TRIAL_SECONDS
from adapruner.models.structures import Structures

ON_REFERENCE = frozenset({"vector", "element1", "element2", "mixed"})
"""The scores of works that draw a few samples; all others look at the whole pool."""


def recipe_of(metric: FixedMetric, table: ImportanceTable, seed: int) -> Recipe:
    """What `metric` looks at; `seed` is what the random score is drawn by."""
    samples = table.reference if metric in ON_REFERENCE else tuple(range(table.samples))
    return Recipe(metric=metric, samples=samples, seed=seed)


def decide(
    checkpoint: Path,
    pool: Path,
    directory: Path,
    table: ImportanceTable,
    structures: Structures,
    model: ModelConfig,
    metric: FixedMetric,
    pruning: PruningConfig,
    seed: int,
    out: Path,
) -> None:
    """Writes what a search writes, with one row in trials.json; `table` is that in `directory`.

    Raises UserError when the ratio can't be reached, before the model is loaded.
    """
    recipe = recipe_of(metric, table, seed)
    windows = load_file(pool / "pool.safetensors")["objective"]
    provenance = {
        "method": metric,
        "seed": seed,
        "importance_sha256": hash_file(directory / importance.FILE),
        "objective_sha256": hash_json(windows.tolist()),
        "recipe": recipe.model_dump(mode="json"),
    }
    begun = time.perf_counter()
    scores = scoring.score(table, recipe)
    decided = allocation.allocate(scores, structures, pruning, provenance)
    plan_s = time.perf_counter() - begun
    announce(f"search: no trials, the score is '{metric}'")
    loaded = ckpt.load_model(checkpoint, model)
    dense = perplexity(loaded, windows)
    begun = time.perf_counter()
    with surgery.narrowed(loaded, decided):
        value = perplexity(loaded, windows)
    seconds = {"plan_s": plan_s, "total_s": plan_s + time.perf_counter() - begun}
    best = {"number": 0, "name": metric, "value": value}
    row = best | {"state": "complete", "params": {}, "best_so_far": value}
    summary = {
        "objective": "perplexity",
        "objective_tokens": windows.numel(),
        "dense_value": dense,
        "study": None,
        "best": best,
        "warm_starts": {metric: value},
        "trials": 1,
    }
    decided.write(out / plan.FILE)
    files: dict[str, Any] = {"trials.json": [row], "summary.json": summary}
    for name, content in (files | {TRIAL_SECONDS: [seconds]}).items():
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        (out / name).write_text(text, encoding="utf-8")
