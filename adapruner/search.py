"""The Bayesian search over calibration samples, importance metrics and width profiles.

Each trial scores the structures, plans, and measures the perplexity of the narrowed model on the
objective text. The study is stored; a study that was interrupted goes on where it stopped, and as
each trial's sampler is seeded by how many trials are finished, it ends as if never interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from safetensors.torch import load_file

from adapruner import allocation, importance, perplexity, plan, scoring, space, surgery
from adapruner import checkpoint as ckpt
from adapruner.config import ModelConfig, PruningConfig, SearchConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_file, hash_json
from adapruner.plan import PruningPlan
from adapruner.progress import say, track
from adapruner.scoring import Recipe, score
from adapruner.structures import Structures

TRIAL_SECONDS = "trial_seconds.json"
_DECIDING = (allocation, importance, perplexity, plan, scoring, space, surgery)

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=8),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def search(
    checkpoint: Path,
    pool: Path,
    table: Path,
    model: ModelConfig,
    search: SearchConfig,
    pruning: PruningConfig,
    seed: int,
    storage: str,
    out: Path,
) -> None:
    """Searches a plan and writes `plan.json`, `trials.json` and `summary.json` to `out`.

    `storage` is an Optuna storage URL. Raises UserError when the ratio can't be reached, which is
    found out before the model is loaded.
    """
    statistics = importance.read_table(table / importance.FILE)
    structures = ckpt.inspect(checkpoint, trust_remote_code=model.trust_remote_code)
    whole = Recipe(samples=tuple(range(statistics.samples)))
    allocation.allocate(score(statistics, whole), structures, pruning, 0.0, {})

    windows = load_file(pool / "pool.safetensors")["objective"]
    depends = {
        "table": hash_file(table / importance.FILE),
        "objective": hash_json(windows.tolist()),
        "model": model.model_dump(include={"dtype"}),
        "search": search.model_dump(exclude={"trials", "storage"}),
        "pruning": pruning.model_dump(),
        "seed": seed,
        "code": [hash_file(Path(str(module.__file__))) for module in _DECIDING],
    }
    study = _open_study(f"adapruner-{hash_json(depends)[:16]}", storage)

    loaded = ckpt.load_model(checkpoint, model)
    started = time.perf_counter()
    dense = perplexity.perplexity(loaded, windows)
    cost = time.perf_counter() - started
    say(f"search: {search.trials} trials of about {cost:.0f} s each, study {study.study_name}")

    def objective(recipe: Recipe) -> tuple[float, dict[str, Any]]:
        begun = time.perf_counter()
        decided = _plan(statistics, structures, pruning, recipe)
        planned = time.perf_counter() - begun
        with surgery.narrowed(loaded, decided):
            value = perplexity.perplexity(loaded, windows)
        return value, {"plan_s": planned, "total_s": time.perf_counter() - begun}

    _run_trials(study, statistics, search, pruning, seed, objective)
    _write(study, statistics, structures, search, pruning, seed, dense, depends, out)


def _plan(
    table: importance.ImportanceTable,
    structures: Structures,
    pruning: PruningConfig,
    recipe: Recipe,
    provenance: dict[str, Any] | None = None,
) -> PruningPlan:
    scores = score(table, recipe)
    return allocation.allocate(scores, structures, pruning, recipe.width_exponent, provenance or {})


def _open_study(name: str, storage: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=name, storage=storage, direction="minimize", load_if_exists=True
        )
    except Exception as error:
        raise UserError(
            f"the study's storage can't be opened ({ckpt.one_line(error)}); see search.storage"
        ) from None
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # its process is gone
    return study


def _run_trials(
    study: optuna.Study,
    table: importance.ImportanceTable,
    search: SearchConfig,
    pruning: PruningConfig,
    seed: int,
    objective: Callable[[Recipe], tuple[float, dict[str, Any]]],
) -> None:
    distributions = space.search_space(table, search, pruning)
    starts = space.warm_starts(table, distributions, search)
    signatures = space.signatures(table)
    finished = _finished(study)
    known = {trial.user_attrs["recipe"]: trial.value for trial in finished}
    done = {trial.user_attrs["name"] for trial in finished}

    def run(recipe: Recipe) -> tuple[float, dict[str, Any]]:
        spelled = recipe.model_dump_json()
        seen = known.get(spelled)
        value, seconds = (seen, {}) if seen is not None else objective(recipe)
        known[spelled] = value
        return value, {"recipe": spelled, "seconds": seconds}

    total = max(search.trials, len(starts))
    missing = [name for name in starts if name not in done]
    for position in track(range(total - len(finished)), "search"):
        if position < len(missing):
            params, recipe = starts[missing[position]]
            value, attrs = run(recipe)
            used = {name: distributions[name] for name in params}
            study.add_trial(
                create_trial(
                    params=params,
                    distributions=used,
                    value=value,
                    user_attrs=attrs | {"name": missing[position]},
                )
            )
            continue
        study.sampler = SAMPLERS[search.sampler](seed + len(_finished(study)))
        trial = study.ask(distributions)
        value, attrs = run(space.recipe_of(trial.params, signatures))
        for key, attr in (attrs | {"name": "trial"}).items():
            trial.set_user_attr(key, attr)
        study.tell(trial, value)


def _finished(study: optuna.Study) -> list[Any]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _write(
    study: optuna.Study,
    table: importance.ImportanceTable,
    structures: Structures,
    search: SearchConfig,
    pruning: PruningConfig,
    seed: int,
    dense: float,
    depends: dict[str, Any],
    out: Path,
) -> None:
    finished = _finished(study)[: max(search.trials, 1)] or _finished(study)
    best = min(finished, key=lambda trial: (trial.value, trial.number))
    recipe = Recipe.model_validate_json(best.user_attrs["recipe"])
    rows: list[dict[str, Any]] = []
    for number, trial in enumerate(finished):
        lowest = min(trial.value, rows[-1]["best_so_far"]) if rows else trial.value
        rows.append(
            {
                "number": number,
                "name": trial.user_attrs["name"],
                "value": trial.value,
                "state": "complete",
                "params": trial.params,
                "best_so_far": lowest,
            }
        )
    chosen = rows[finished.index(best)]
    provenance = {
        "method": "adapruner",
        "study": study.study_name,
        "trial": chosen["number"],
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "importance_sha256": depends["table"],
        "objective_sha256": depends["objective"],
    }
    _plan(table, structures, pruning, recipe, provenance).write(out / plan.FILE)
    summary = {
        "objective": "perplexity",
        "objective_tokens": None,
        "dense_value": dense,
        "best": {"number": chosen["number"], "name": chosen["name"], "value": best.value},
        "warm_starts": {r["name"]: r["value"] for r in rows if r["name"] != "trial"},
        "trials": len(rows),
        "study": study.study_name,
    }
    _dump(rows, out / "trials.json")
    _dump(summary, out / "summary.json")
    _dump([trial.user_attrs["seconds"] for trial in finished], out / TRIAL_SECONDS)


def _dump(value: Any, file: Path) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
