"""A search of several objectives: its front, its choice, resumption and determinism."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapruner.data.pool import Pool
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import perplexity
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.updates.gram_matrices import GramMatrices
from adapruner.search.front import front, nearest_to_ideal
from adapruner.search.results import SearchResult, Trials
from adapruner.search.search import search
from tests.adapruner.conftest import Workplace, write_gram_matrices, write_importance
from tests.adapruner.evaluation.tasks.test_margins import resolved, write_word_rows
from tests.adapruner.search.test_search import config, inputs_of, studies

FILES = ("plan.json", "trials.json", "search.json")


@pytest.fixture(scope="module")
def table(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The importance table, the gram matrices and objective rows, in one folder."""
    root = tmp_path_factory.mktemp("inputs")
    rows = write_word_rows(root / "rows", {"piqa": 24})
    out = resolved(workplace.model, rows, root / "table", "piqa", rows=24)
    write_importance(workplace, out)
    write_gram_matrices(workplace, out)
    return out


def run(work: Workplace, table: Path, out: Path, **changes: Any) -> Path:
    """The search in the new folder `out`, with its study beside it."""
    out.mkdir(parents=True)
    if "margin" in changes.setdefault("objective", ("perplexity", "kl")):
        changes["tasks"] = ("piqa",)
    storage = f"sqlite:///{out.parent / 'studies.db'}"
    search(inputs_of(work, table), config(work, **changes), storage, out)
    return out


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": ("kl", "margin")},
        {"objective": ("margin", "perplexity"), "sampler": "tpe", "trials": 12},
        {"sampler": "random"},
        {"objective": ("perplexity", "kl", "margin"), "trials": 12},
        {"vary": ("shares", "token"), "sampler": "tpe", "trials": 12},
        {"vary": ("shares", "token"), "trials": 12},
    ],
)
def test_the_selected_trial_is_on_the_front_of_the_held_out_values(
    changes: dict[str, Any], workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path / "out", **changes)
    names = changes.get("objective", ("perplexity", "kl"))
    rows, result = Trials.read(out).trials, SearchResult.read(out)
    assert len(rows) == result.trials == changes.get("trials", 9)
    assert result.objectives == names
    assert all(tuple(row.values) == names and row.state == "complete" for row in rows)
    values = {n: tuple(row.held_out.values()) for n, row in enumerate(rows) if row.held_out}
    assert result.held_out is not None and tuple(result.held_out.dense_values) == names
    assert list(result.held_out.front) == front(values)
    assert result.best.number == nearest_to_ideal(values)
    assert result.best.number in result.held_out.front
    assert set(result.held_out.warm_starts) == {r.name for r in rows if r.name != "trial"}
    plan = PruningPlan.read(out)
    assert plan.provenance["trial"] == result.best.number
    assert plan.provenance["values"] == result.best.values
    assert plan.provenance["held_out"] == result.best.held_out


def test_finalists_are_trials_on_the_front_of_the_objective_text(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path / "out", trials=14, finalists=2)
    others = {row.number: row for row in Trials.read(out).trials if row.name == "trial"}
    finalists = {number for number, row in others.items() if row.held_out}
    on_front = front({number: tuple(row.values.values()) for number, row in others.items()})
    assert len(finalists) == 2
    assert finalists <= set(on_front) or set(on_front) <= finalists


def test_values_are_those_of_the_updated_model(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path / "out", trials=5)
    model, plan = ckpt.load_model(workplace.checkpoint, workplace.model), PruningPlan.read(out)
    pool, best = Pool.read(workplace.pool), SearchResult.read(out).best
    with narrowed(model, plan, GramMatrices(table).updated_projections(model, plan)):
        value, held_out = (perplexity(model, text) for text in (pool.objective, pool.held_out))
    assert best.held_out is not None
    assert best.values["perplexity"] == pytest.approx(value, rel=1e-5)
    assert best.held_out["perplexity"] == pytest.approx(held_out, rel=1e-5)


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_a_continued_study_and_another_one_with_the_same_seed_give_the_same_files(
    sampler: str, workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    whole = run(workplace, table, tmp_path / "one" / "whole", trials=14, sampler=sampler)
    part = run(workplace, table, tmp_path / "two" / "part", trials=10, sampler=sampler)
    with_half_a_trial(part.parent)
    continued = run(workplace, table, tmp_path / "two" / "continued", trials=14, sampler=sampler)
    for file in FILES:
        assert (whole / file).read_bytes() == (continued / file).read_bytes(), file
    assert (part / "trials.json").read_bytes() != (whole / "trials.json").read_bytes()


def with_half_a_trial(root: Path) -> None:
    """Leaves the study as a process does that is killed within a trial."""
    (study,) = studies(root)
    assert len(study.directions) == 2
    study.ask()


def test_margins_of_the_held_out_rows_select_and_enter_no_trial(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    other = Pool.read(workplace.pool)
    replace(other, held_out=other.objective.clone()).write(pool)
    objective = ("kl", "margin")
    out = run(replace(workplace, pool=pool), table, tmp_path / "out", objective=objective)
    for row in Trials.read(out).trials:
        if row.held_out is not None:
            assert row.held_out["kl"] == pytest.approx(row.values["kl"], rel=1e-5)
            assert row.held_out["margin"] != pytest.approx(row.values["margin"], rel=1e-5)


def test_a_sampler_of_one_objective_is_refused_before_the_study(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"takes no 2 objectives"):
        run(workplace, table, tmp_path / "out", sampler="optuna.samplers:CmaEsSampler")
    assert not (tmp_path / "studies.db").exists()
