"""A study has one owner at a time, and stops trials that are hopeless."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
from optuna.search_space import intersection_search_space

from adapruner.config import SearchConfig
from adapruner.errors import UserError
from adapruner.importance.recipe import Recipe
from adapruner.importance.statistics import importance_table
from adapruner.search.parallel.storage import lock_file
from adapruner.search.trials.evaluator import Evaluation, IsHopeless
from adapruner.search.trials.space import build_space
from adapruner.search.trials.study import is_stopped, owned_study, run_trials
from tests.adapruner.search.trials.test_space import plan_config
from tests.models import small_model, tokens

WINDOWS = 48


def test_study_has_one_owner_at_a_time(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    with owned_study("ours", storage) as study:
        trial = study.ask()
        second = owned_study("ours", storage)
        with pytest.raises(UserError, match="another run is searching the study ours") as error:
            second.__enter__()
        assert "\n" not in str(error.value)
        with owned_study("another", storage):
            study.tell(trial, 1.0)  # the first owner continues
        study.ask()
    with owned_study("ours", storage) as study:
        states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL"], "unfinished trials of a former owner are failed"


def test_lock_of_a_database_server_depends_on_host_and_study_but_not_on_the_password() -> None:
    files = [
        lock_file(name, f"postgresql+psycopg2://user:{password}@{host}:5432/studies")
        for name, password, host in (
            ("a", "one", "here"), ("a", "two", "here"), ("a", "one", "there"), ("b", "one", "here"),
        )
    ]  # fmt: skip
    assert {file.parent for file in files} == {Path(tempfile.gettempdir())}
    assert files[0] == files[1]
    assert len(set(files)) == 3
    assert lock_file("a", "sqlite://") != files[0]


def mean(losses: Sequence[float]) -> tuple[float]:
    """The value of the only objective."""
    return (fmean(losses),)


def losses_of(quality: float) -> list[float]:
    """Losses of windows that differ far more than models: a model adds `quality` to each."""
    rng, noise = random.Random(0), random.Random(quality)
    return [rng.gauss(4, 1) + quality + noise.gauss(0, 0.01) for _ in range(WINDOWS)]


def test_a_trial_that_is_worse_on_the_same_windows_is_stopped_and_its_value_is_estimated() -> None:
    table = importance_table(small_model("llama"), tokens(12, 16), [0, 3, 5, 8], (0,) * 12)
    qualities: dict[str, float] = {}
    evaluated: list[int] = []

    def evaluate(recipe: Recipe, is_hopeless: IsHopeless | None) -> Evaluation:
        """Trials are worse than the warm starts, but for the third, which is better."""
        others = len(qualities)
        quality = 0.0 if is_hopeless is None else (-0.5 if others == 2 else 0.5)
        if is_hopeless is not None:
            qualities[recipe.model_dump_json()] = quality
        losses: list[float] = []
        for start in range(0, WINDOWS, 8):
            losses += (part := losses_of(quality)[start : start + 8])
            if is_hopeless is not None and is_hopeless(part):
                break
        evaluated.append(len(losses))
        return Evaluation(losses, {"plan_s": 0.0, "total_s": 0.0})

    with owned_study("stops", "sqlite://") as study:
        search = SearchConfig(set_size=4, trials=10)
        space = build_space(table, plan_config(search=search), 1)
        trials = run_trials(study, space, search, 0, evaluate, mean)
    others = [trial for trial in trials if trial.user_attrs["name"] == "trial"]
    assert [is_stopped(trial) for trial in others] == [True, True, False, True, True]
    for trial in others:
        recipe = trial.user_attrs["recipe"]
        whole = fmean(losses_of(qualities[recipe]))
        assert trial.value == pytest.approx(whole, abs=0.02), "estimated from a part, or whole"
        assert trial.user_attrs["windows"] == (8 if is_stopped(trial) else WINDOWS)
    assert min(trials, key=lambda t: t.value or 0) is others[2]
    assert sum(evaluated) < 0.8 * WINDOWS * len(trials)


def test_all_complete_trials_have_the_parameters_that_samplers_need() -> None:
    table = importance_table(small_model("llama"), tokens(12, 16), [0, 3, 5, 8], (0, 1) * 6)
    search = SearchConfig(set_size=4, trials=9, sampler="gp", vary=("shares", "token"))
    space = build_space(table, plan_config(search=search), 1)
    assert space.warm_starts["llm-pruner-element"].params == {}, "it has none"

    def evaluate(_: Recipe, is_hopeless: IsHopeless | None) -> Evaluation:
        if is_hopeless is not None:
            is_hopeless(losses_of(0.0))
        return Evaluation(losses_of(0.0), {"plan_s": 0.0, "total_s": 0.0})

    with owned_study("gp", "sqlite://") as study:
        trials = run_trials(study, space, search, 0, evaluate, mean)
        common = intersection_search_space(study.get_trials())
    assert common == space.distributions
    assert len(trials) == 9
    assert all(trial.value is not None for trial in trials)


def test_a_trial_with_a_better_mean_is_not_stopped_for_its_ranks() -> None:
    table = importance_table(small_model("llama"), tokens(12, 16), [0, 3, 5, 8], (0,) * 12)
    search = SearchConfig(set_size=4, trials=8)
    space = build_space(table, plan_config(search=search), 1)
    start = losses_of(0.0)
    outlier = [start[0] - 10] + [loss + 0.01 for loss in start[1:]]

    def evaluate(_: Recipe, is_hopeless: IsHopeless | None) -> Evaluation:
        """Trials are worse on nearly all windows, and much better on the first."""
        losses: list[float] = []
        for begin in range(0, WINDOWS, 8):
            part = (start if is_hopeless is None else outlier)[begin : begin + 8]
            losses += part
            if is_hopeless is not None and is_hopeless(part):
                break
        return Evaluation(losses, {"plan_s": 0.0, "total_s": 0.0})

    with owned_study("ranks", "sqlite://") as study:
        trials = run_trials(study, space, search, 0, evaluate, mean)
    others = [trial for trial in trials if trial.user_attrs["name"] == "trial"]
    assert not is_stopped(others[0])
    assert others[0].value == pytest.approx(fmean(outlier))
    assert all(trial.value >= fmean(outlier) - 1e-9 for trial in others if trial.value)
