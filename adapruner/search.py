"""The Bayesian search over calibration samples, importance metrics and width profiles.

Each trial scores the structures, plans, and measures the perplexity of the narrowed model on the
objective text. The study is stored; a study that was interrupted goes on where it stopped, and as
each trial's sampler is seeded by how many trials are finished, it ends as if never interrupted.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from safetensors.torch import load_file
from torch import Tensor

from adapruner import (
    allocation,
    families,
    fixed,
    gradients,
    importance,
    modeling,
    perplexity,
    plan,
    scoring,
    space,
    structures,
    surgery,
)
from adapruner import checkpoint as ckpt
from adapruner.config import ModelConfig, PruningConfig, SearchConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_file, hash_json
from adapruner.plan import PruningPlan
from adapruner.progress import say, track
from adapruner.scoring import Recipe, score
from adapruner.structures import Structures

TRIAL_SECONDS = "trial_seconds.json"
_DECIDING = (
    allocation, ckpt, families, fixed, gradients, importance, modeling, perplexity, plan, scoring,
    space, structures, surgery,
)  # fmt: skip
"""The modules that decide, with this one, what a trial's value is: a study is of one version."""

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
    """Writes `plan.json`, `trials.json` and `summary.json` to `out`: searched, or of a fixed score.

    `storage` is an Optuna storage URL. Raises UserError when the ratio can't be reached or another
    run has the study, which is found out before the model is loaded.
    """
    statistics = importance.read_table(table / importance.FILE)
    structures = ckpt.inspect(checkpoint)
    if search.metric != "searched":
        fixed.decide(
            checkpoint,
            pool,
            table,
            statistics,
            structures,
            model,
            search.metric,
            pruning,
            seed,
            out,
        )
        return
    whole = Recipe(samples=tuple(range(statistics.samples)))
    allocation.allocate(score(statistics, whole), structures, pruning, 0.0, {})

    windows = load_file(pool / "pool.safetensors")["objective"]
    depends = depends_on(table, windows, model, search, pruning, seed)
    planned = partial(_plan, statistics, structures, pruning)
    with owned_study(f"adapruner-{hash_json(depends)[:16]}", storage) as study:
        loaded = ckpt.load_model(checkpoint, model)
        started = time.perf_counter()
        dense = perplexity.perplexity(loaded, windows)
        cost = time.perf_counter() - started
        say(f"search: {search.trials} trials of about {cost:.0f} s each, study {study.study_name}")

        def objective(recipe: Recipe) -> tuple[float, dict[str, Any]]:
            begun = time.perf_counter()
            decided = planned(recipe)
            plan_s = time.perf_counter() - begun
            with surgery.narrowed(loaded, decided):
                value = perplexity.perplexity(loaded, windows)
            return value, {"plan_s": plan_s, "total_s": time.perf_counter() - begun}

        finished = _run_trials(study, statistics, search, pruning, seed, objective)
    provenance = {
        "method": "adapruner",
        "study": study.study_name,
        "seed": seed,
        "importance_sha256": depends["table"],
        "objective_sha256": depends["objective"],
    }
    summary = {
        "objective": "perplexity",
        "objective_tokens": windows.numel(),
        "dense_value": dense,
        "study": study.study_name,
    }
    _write(finished, planned, provenance, summary, out)


def depends_on(
    table: Path,
    windows: Tensor,
    model: ModelConfig,
    search: SearchConfig,
    pruning: PruningConfig,
    seed: int,
) -> dict[str, Any]:
    """What the trials' values depend on, as JSON: a study holds trials of one such value."""
    return {
        "table": hash_file(table / importance.FILE),
        "objective": hash_json(windows.tolist()),
        "device": str(ckpt.device_of(model)),
        "dtype": model.dtype,
        "search": search.model_dump(exclude={"trials", "storage"}),
        "pruning": pruning.model_dump(),
        "seed": seed,
        "code": [hash_file(Path(str(f))) for f in (__file__, *(m.__file__ for m in _DECIDING))],
    }


def _plan(
    table: importance.ImportanceTable,
    structures: Structures,
    pruning: PruningConfig,
    recipe: Recipe,
    provenance: dict[str, Any] | None = None,
) -> PruningPlan:
    scores = score(table, recipe)
    return allocation.allocate(scores, structures, pruning, recipe.width_exponent, provenance or {})


@contextmanager
def owned_study(name: str, storage: str) -> Iterator[optuna.Study]:
    """The study, made if absent, which nobody else can own until the block ends.

    Trials that a process left unfinished when it died are marked as failed. Raises UserError when
    the storage can't be opened or the study has an owner. A study in a database server has one
    owner on each machine (and for each user there): owners on two machines are not told apart.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=name, storage=storage, direction="minimize", load_if_exists=True
        )
    except Exception as error:
        raise UserError(
            f"the study's storage can't be opened ({type(error).__name__}); see search.storage"
        ) from None
    with _locked(lock_file(name, storage), name):
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)  # its process is gone
        yield study


def lock_file(name: str, storage: str) -> Path:
    """The file that the owner of a study holds a lock on. It is empty and stays.

    It is beside an SQLite database, and in the folder for temporary files for other storages.
    """
    backend, _, location = storage.partition("://")
    database = location.partition("?")[0].partition("/")[2]
    if backend.startswith("sqlite") and Path(database).is_file():
        file = Path(database).resolve()
        return file.with_name(f"{file.name}.{name}.lock")
    # A database in memory is its process' own. What is before the @ may be a password.
    owner = os.getpid() if database in ("", ":memory:") else os.getuid()
    where = hash_json([backend, location.rpartition("@")[2], owner])[:16]
    return Path(tempfile.gettempdir()) / f"{name}.{where}.lock"


@contextmanager
def _locked(file: Path, name: str) -> Iterator[None]:
    """Holds a lock that the kernel takes back when the process ends, however it ends."""
    with file.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another run is searching the study {name} (it holds '{file}'): wait until it "
                "ends, or give this run another search.storage"
            ) from None
        yield


def _run_trials(
    study: optuna.Study,
    table: importance.ImportanceTable,
    search: SearchConfig,
    pruning: PruningConfig,
    seed: int,
    objective: Callable[[Recipe], tuple[float, dict[str, Any]]],
) -> list[Any]:
    """Runs the missing trials; returns the first `search.trials`, all warm starts at least."""
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
    return _finished(study)[:total]


def _finished(study: optuna.Study) -> list[Any]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _write(
    finished: list[Any],
    planned: Callable[[Recipe, dict[str, Any]], PruningPlan],
    provenance: dict[str, Any],
    summary: dict[str, Any],
    out: Path,
) -> None:
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
    best = min(rows, key=lambda row: (row["value"], row["number"]))
    recipe = Recipe.model_validate_json(finished[best["number"]].user_attrs["recipe"])
    chosen = {"trial": best["number"], "recipe": recipe.model_dump(mode="json")}
    planned(recipe, provenance | chosen).write(out / plan.FILE)
    found = {
        "best": {key: best[key] for key in ("number", "name", "value")},
        "warm_starts": {row["name"]: row["value"] for row in rows if row["name"] != "trial"},
        "trials": len(rows),
    }
    _dump(rows, out / "trials.json")
    _dump(summary | found, out / "summary.json")
    _dump([trial.user_attrs["seconds"] for trial in finished], out / TRIAL_SECONDS)


def _dump(value: Any, file: Path) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
