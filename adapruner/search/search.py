"""The Bayesian search over calibration samples, importance metrics and width profiles.

Each trial scores the structures, plans, cuts and updates as what is shipped will be, and measures
that on the objective text. The study is stored; one that was interrupted goes on where it stopped,
and as each trial's sampler is seeded by how many trials are finished, it ends as if never
interrupted.

Many trials on one text find also what fits that text alone. So the best trials and all warm starts
are judged again, on held-out text that no trial has seen; that decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from safetensors.torch import load_file
from torch import Tensor

from adapruner.pruning import allocation, sensitivity as layer_losses, plan, width_profile as profile, reconstruction, gram_matrices as rehearsal, surgery
from adapruner.models import families, modeling, structures
from adapruner.search import fixed_metric as fixed, objective as judging, results as search_results, space, study
from adapruner.importance import gradients, statistics as importance, scores as scoring
from adapruner.evaluation import perplexity, divergence as teacher
from adapruner.models import checkpoint as ckpt
from adapruner.config import ModelConfig, PruningConfig, ReconstructionConfig, SearchConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_file, hash_json
from adapruner.search.objective import Judge
from adapruner.pruning.plan import PruningPlan
from adapruner.progress import announce, track
from adapruner.pruning.reconstruction.least_squares import RIDGE
from adapruner.importance.scores import Recipe, score
from adapruner.search.results import Final, Planned
from adapruner.models.structures import Structures
from adapruner.search.study import owned_study, run_trials

UPDATED_ON = 128
"""Samples of the update split that trials are updated on."""

LAYER = "layer_loss:"

_DECIDING = (
    allocation, ckpt, families, fixed, gradients, importance, judging, layer_losses, modeling,
    perplexity, plan, profile, reconstruction, rehearsal, scoring, search_results, space,
    structures, study, surgery, teacher,
)  # fmt: skip
"""The modules that decide, with this one, what a trial's value is: a study is of one version."""


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
    planned = partial(_plan, statistics, structures, pruning, None)
    planned(Recipe(samples=tuple(range(statistics.samples))), {})

    texts = load_file(pool / "pool.safetensors")
    depends = depends_on(table, texts, model, search, pruning, reconstruction, seed)
    name = f"adapruner-{hash_json(depends)[:16]}"
    with owned_study(name, storage) as opened, TemporaryDirectory(dir=out) as folder:
        loaded = ckpt.load_model(checkpoint, model)
        grams = Path(folder) if reconstruction.method == "least_squares" else None
        if grams:
            rehearsal.gather(loaded, texts["update"][:UPDATED_ON], grams)
        ridge = reconstruction.ridge or RIDGE
        updated = partial(rehearsal.updates, loaded, grams, ridge)
        begun = time.perf_counter()
        judge = Judge.of(loaded, texts["objective"], search.objective)
        cost = time.perf_counter() - begun
        update = "an update and " if grams else ""
        announce(f"search: {search.trials} trials, each {update}{cost:.0f} s of judging: {name}")
        losses = None
        if "widths" in search.vary and pruning.layout == "per_layer":
            losses = _layer_losses(opened, loaded, statistics, texts["objective"], grams, ridge)
            planned = partial(_plan, statistics, structures, pruning, losses)

        def value(judge: Judge, decided: PruningPlan) -> float:
            return judge.value_cut(loaded, decided, updated(decided))

        objective = partial(_trial, planned, partial(value, judge))
        distributions = space.search_space(statistics, search, pruning, _reach(planned, pruning))
        starts = space.warm_starts(statistics, distributions, search, pruning)
        signatures = space.signatures(statistics)
        trials = run_trials(opened, distributions, starts, signatures, search, seed, objective)
        held_out = Judge.of(loaded, texts["held_out"], search.objective)
        values = _finals(opened, trials, search, planned, partial(value, held_out))
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
        "held_out_tokens": texts["held_out"].numel(),
        "dense_value": judge.dense,
        "study": opened.study_name,
        "layer_losses": None
        if losses is None
        else {"removed": profile.REMOVED, "losses": losses.tolist()},
    }
    final = Final(held_out.dense, values)
    search_results.write(trials, final, planned, provenance, summary, out)


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
        **{name: hash_json(texts[name].tolist()) for name in ("objective", "held_out", "update")},
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
    losses: Tensor | None,
    recipe: Recipe,
    provenance: dict[str, Any],
) -> PruningPlan:
    if recipe.protect is not None:
        ends = dict(zip(("protect_first", "protect_last"), recipe.protect, strict=True))
        pruning = pruning.model_copy(update=ends)
    shape = None if losses is None else profile.Profile(losses, recipe.width_profile)
    return allocation.allocate(score(table, recipe), structures, pruning, provenance, shape)


def _layer_losses(
    opened: optuna.Study,
    loaded: Any,
    table: importance.ImportanceTable,
    windows: Tensor,
    grams: Path | None,
    ridge: float,
) -> Tensor:
    """What cutting each layer alone costs. Kept in the study, layer by layer."""
    known = {
        int(key.removeprefix(LAYER)): value
        for key, value in opened.user_attrs.items()
        if key.startswith(LAYER)
    }
    recipe = Recipe(samples=tuple(range(table.samples)), alpha_token=0.5)
    return layer_losses.measure(
        loaded, score(table, recipe).mlp, windows, grams, ridge, known,
        lambda index, found: opened.set_user_attr(f"{LAYER}{index}", found),
    )  # fmt: skip


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
    planned: Planned, value: Callable[[PruningPlan], float], recipe: Recipe
) -> tuple[float, dict[str, Any]]:
    begun = time.perf_counter()
    decided = planned(recipe, {})
    plan_s = time.perf_counter() - begun
    found = value(decided)
    return found, {"plan_s": plan_s, "total_s": time.perf_counter() - begun}


def _finals(
    opened: optuna.Study,
    trials: list[Any],
    search: SearchConfig,
    planned: Planned,
    value: Callable[[PruningPlan], float],
) -> dict[int, float]:
    """Value on the held-out text by trial number: of the warm starts and the best of the others.

    What is judged is kept in the study, so that an interrupted search goes on here, too.
    """
    warm = [n for n, trial in enumerate(trials) if trial.user_attrs["name"] != "trial"]
    others = sorted(set(range(len(trials))) - set(warm), key=lambda n: (trials[n].value, n))
    values = {}
    for number in track([*warm, *others[: search.finalists]], "held-out text"):
        recipe = Recipe.model_validate_json(trials[number].user_attrs["recipe"])
        key = f"held_out:{hash_json(recipe.model_dump(mode='json'))[:16]}"
        known = opened.user_attrs.get(key)
        values[number] = value(planned(recipe, {})) if known is None else known
        opened.set_user_attr(key, values[number])
    return values
