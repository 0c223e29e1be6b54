"""The Bayesian search over calibration samples, importance metrics and width profiles.

Each trial scores the structures, plans, and measures the narrowed model on the objective text. The
study is stored; one that was interrupted goes on where it stopped, and as each trial's sampler is
seeded by how many trials are finished, it ends as if never interrupted.

Many trials on one text find also what fits that text alone. So the best trials and all warm starts
are judged again, on held-back text that no trial has seen, each cut and updated as what is shipped
will be; that decides.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from safetensors.torch import load_file
from torch import Tensor

from adapruner import (
    allocation,
    families,
    fixed,
    gradients,
    importance,
    judging,
    modeling,
    perplexity,
    plan,
    reconstruction,
    scoring,
    space,
    structures,
    study,
    surgery,
    teacher,
)
from adapruner import checkpoint as ckpt
from adapruner.config import ModelConfig, PruningConfig, ReconstructionConfig, SearchConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_file, hash_json
from adapruner.judging import Judge
from adapruner.plan import PruningPlan
from adapruner.progress import say, track
from adapruner.scoring import Recipe, score
from adapruner.structures import Structures
from adapruner.study import owned_study, run_trials

TRIAL_SECONDS = "trial_seconds.json"
UPDATED_ON = 64
"""Samples of the update split that a finalist is updated on."""

_DECIDING = (
    allocation, ckpt, families, fixed, gradients, importance, judging, modeling, perplexity, plan,
    reconstruction, scoring, space, structures, study, surgery, teacher,
)  # fmt: skip
"""The modules that decide, with this one, what a trial's value is: a study is of one version."""

Planned = Callable[[Recipe, dict[str, Any]], PruningPlan]


class Final(NamedTuple):
    """What the held-back text said: of the dense model, and by number of the judged trials."""

    dense: float
    values: dict[int, float]


def search(
    checkpoint: Path,
    pool: Path,
    table: Path,
    model: ModelConfig,
    search: SearchConfig,
    pruning: PruningConfig,
    reconstruction: ReconstructionConfig,
    seed: int,
    storage: str,
    out: Path,
) -> None:
    """Writes `plan.json`, `trials.json` and `summary.json` to `out`: searched, or of a fixed score.

    `storage` is an Optuna storage URL. Raises UserError when the ratio can't be reached or another
    run has the study, which is found out before the model is loaded.
    """
    statistics = importance.read_table(table / importance.FILE)
    structures = ckpt.inspect(checkpoint)
    if search.metric != "searched":
        decide = partial(fixed.decide, checkpoint, pool, table, statistics, structures, model)
        decide(search.metric, pruning, seed, out)
        return
    planned = partial(_plan, statistics, structures, pruning)
    planned(Recipe(samples=tuple(range(statistics.samples))), {})

    texts = load_file(pool / "pool.safetensors")
    depends = depends_on(table, texts, model, search, pruning, reconstruction, seed)
    with owned_study(f"adapruner-{hash_json(depends)[:16]}", storage) as opened:
        loaded = ckpt.load_model(checkpoint, model)
        started = time.perf_counter()
        judge = Judge.of(loaded, texts["objective"], search.objective)
        cost = time.perf_counter() - started
        say(f"search: {search.trials} trials of about {cost:.0f} s each, study {opened.study_name}")
        objective = partial(_trial, planned, judge, loaded)
        distributions = space.search_space(statistics, search, pruning, _reach(planned, pruning))
        starts = space.warm_starts(statistics, distributions, search, pruning)
        signatures = space.signatures(statistics)
        trials = run_trials(opened, distributions, starts, signatures, search, seed, objective)
        held_back = Judge.of(loaded, texts["held_back"], search.objective)
        del loaded, objective

        def shipped(decided: PruningPlan) -> float:
            samples = texts["update"][:UPDATED_ON]
            return held_back.value_updated(checkpoint, model, decided, samples, reconstruction)

        final = Final(held_back.dense, _finals(opened, trials, search, planned, shipped))
    provenance = {
        "method": "adapruner",
        "study": opened.study_name,
        "seed": seed,
        "importance_sha256": depends["table"],
        "objective_sha256": depends["objective"],
    }
    summary = {
        "objective": search.objective,
        "objective_tokens": texts["objective"].numel(),
        "held_back_tokens": texts["held_back"].numel(),
        "dense_value": judge.dense,
        "study": opened.study_name,
    }
    _write(trials, final, planned, provenance, summary, out)


def depends_on(
    table: Path,
    texts: dict[str, Tensor],
    model: ModelConfig,
    search: SearchConfig,
    pruning: PruningConfig,
    reconstruction: ReconstructionConfig,
    seed: int,
) -> dict[str, Any]:
    """What the trials' values depend on, as JSON: a study holds trials of one such value."""
    return {
        "table": hash_file(table / importance.FILE),
        **{name: hash_json(texts[name].tolist()) for name in ("objective", "held_back", "update")},
        "device": str(ckpt.device_of(model)),
        "dtype": model.dtype,
        "search": search.model_dump(exclude={"trials", "storage", "finalists"}),
        "pruning": pruning.model_dump(),
        "reconstruction": reconstruction.model_dump(),
        "seed": seed,
        "code": [hash_file(Path(str(f))) for f in (__file__, *(m.__file__ for m in _DECIDING))],
    }


def _plan(
    table: importance.ImportanceTable,
    structures: Structures,
    pruning: PruningConfig,
    recipe: Recipe,
    provenance: dict[str, Any],
) -> PruningPlan:
    if recipe.protect is not None:
        ends = dict(zip(("protect_first", "protect_last"), recipe.protect, strict=True))
        pruning = pruning.model_copy(update=ends)
    scores = score(table, recipe)
    return allocation.allocate(scores, structures, pruning, recipe.width_exponent, provenance)


def _reach(planned: Planned, pruning: PruningConfig) -> int:
    """How many more layers can be protected at each end, up to space.REACH, at this ratio."""
    for reach in range(space.REACH, 0, -1):
        protect = (pruning.protect_first + reach, pruning.protect_last + reach)
        try:
            planned(Recipe(samples=(0,), protect=protect), {})
        except UserError:
            continue
        return reach
    return 0


def _trial(
    planned: Planned, judge: Judge, loaded: Any, recipe: Recipe
) -> tuple[float, dict[str, Any]]:
    begun = time.perf_counter()
    decided = planned(recipe, {})
    plan_s = time.perf_counter() - begun
    value = judge.value_cut(loaded, decided)
    return value, {"plan_s": plan_s, "total_s": time.perf_counter() - begun}


def _finals(
    opened: optuna.Study,
    trials: list[Any],
    search: SearchConfig,
    planned: Planned,
    shipped: Callable[[PruningPlan], float],
) -> dict[int, float]:
    """Value on the held-back text by trial number: of the warm starts and the best of the others.

    What is judged is kept in the study, so that an interrupted search goes on here, too.
    """
    warm = [n for n, trial in enumerate(trials) if trial.user_attrs["name"] != "trial"]
    others = sorted(set(range(len(trials))) - set(warm), key=lambda n: (trials[n].value, n))
    values = {}
    for number in track([*warm, *others[: search.finalists]], "held-back text"):
        recipe = Recipe.model_validate_json(trials[number].user_attrs["recipe"])
        key = f"held_back:{hash_json(recipe.model_dump(mode='json'))[:16]}"
        known = opened.user_attrs.get(key)
        values[number] = shipped(planned(recipe, {})) if known is None else known
        opened.set_user_attr(key, values[number])
    return values


def _write(
    trials: list[Any],
    final: Final,
    planned: Planned,
    provenance: dict[str, Any],
    summary: dict[str, Any],
    out: Path,
) -> None:
    rows: list[dict[str, Any]] = []
    for number, trial in enumerate(trials):
        lowest = min(trial.value, rows[-1]["best_so_far"]) if rows else trial.value
        rows.append(
            {
                "number": number,
                "name": trial.user_attrs["name"],
                "value": trial.value,
                "held_back": final.values.get(number),
                "state": "complete",
                "params": trial.params,
                "best_so_far": lowest,
            }
        )
    chosen = min(final.values, key=lambda number: (final.values[number], number))
    recipe = Recipe.model_validate_json(trials[chosen].user_attrs["recipe"])
    origin = {"trial": chosen, "recipe": recipe.model_dump(mode="json")}
    planned(recipe, provenance | origin).write(out / plan.FILE)
    best = {key: rows[chosen][key] for key in ("number", "name", "value", "held_back")}
    warm = [row for row in rows if row["name"] != "trial"]
    found = {
        "best": best,
        "warm_starts": {row["name"]: row["value"] for row in warm},
        "held_back": {
            "dense_value": final.dense,
            "value": best["held_back"],
            "warm_starts": {row["name"]: row["held_back"] for row in warm},
        },
        "trials": len(rows),
    }
    _dump(rows, out / "trials.json")
    _dump(summary | found, out / "summary.json")
    _dump([trial.user_attrs["seconds"] for trial in trials], out / TRIAL_SECONDS)


def _dump(value: Any, file: Path) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
