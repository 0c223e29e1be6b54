"""The search: warm starts, resumption, determinism, and a result never worse than a warm start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from adapruner.config import PlanConfig, PruningConfig, ReconstructionConfig, SearchConfig
from adapruner.data.pool import Pool
from adapruner.dependencies import source_files
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import perplexity
from adapruner.hashing import hash_file
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.reconstruction.least_squares import UpdateText, apply_and_update
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.updates.gram_matrices import GramMatrices
from adapruner.search.inputs import SearchInputs
from adapruner.search.results import SearchResult, Trial, Trials
from adapruner.search.search import search, study_dependencies
from tests.adapruner.conftest import Workplace, write_gram_matrices, write_importance
from tests.models import tokens

PRUNING = PruningConfig(ratio=0.2, ratio_of="blocks", protect_first=1, protect_last=1, round_to=4)
SEARCH = SearchConfig(trials=9, set_size=4)
UPDATE = ReconstructionConfig()

PROGRAM = """
import json, sys
from pathlib import Path
from adapruner.config import PlanConfig
from adapruner.search.inputs import SearchInputs
from adapruner.search.search import search
arguments = json.loads(sys.argv[1])
out = Path(arguments["out"])
out.mkdir()
inputs = SearchInputs(*map(Path, arguments["inputs"]))
search(inputs, PlanConfig(**arguments["config"]), arguments["storage"], out)
"""


@pytest.fixture(scope="module")
def table(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The importance table and the gram matrices, in one folder."""
    out = tmp_path_factory.mktemp("table")
    write_importance(workplace, out)
    write_gram_matrices(workplace, out)
    return out


def inputs_of(work: Workplace, table: Path) -> SearchInputs:
    return SearchInputs(work.checkpoint, work.pool, table, table, table)


def config(work: Workplace, pruning: PruningConfig = PRUNING, **changes: Any) -> PlanConfig:
    search_config = SEARCH.model_copy(update=changes)
    return PlanConfig(
        seed=0, model=work.model, search=search_config, pruning=pruning, reconstruction=UPDATE
    )


def run(work: Workplace, table: Path, root: Path, name: str, **changes: Any) -> Path:
    out = root / name
    out.mkdir()
    storage = f"sqlite:///{root / 'studies.db'}"
    search(inputs_of(work, table), config(work, **changes), storage, out)
    return out


def trials(out: Path) -> tuple[Trial, ...]:
    return Trials.read(out).trials


def value(values: dict[str, float] | None) -> float:
    """The value of the only objective."""
    assert values is not None
    (single,) = values.values()
    return single


def held_out(rows: tuple[Trial, ...]) -> list[float]:
    """The held-out values of the only objective."""
    return [value(row.held_out) for row in rows if row.held_out is not None]


def studies(root: Path) -> list[optuna.Study]:
    storage = f"sqlite:///{root / 'studies.db'}"
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def program(work: Workplace, table: Path, root: Path, name: str, **changes: Any) -> list[str]:
    arguments = {
        "inputs": [str(path) for path in vars(inputs_of(work, table)).values()],
        "out": str(root / name),
        "config": config(work, **changes).model_dump(mode="json"),
        "storage": f"sqlite:///{root / f'{name}.db'}",
    }
    return [sys.executable, "-c", PROGRAM, json.dumps(arguments)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"samples": "slots", "vary": ("metrics", "samples")},
        {"fusion": "aligned"},
        {"fusion": "learned", "vary": ("metrics", "token", "shares")},
        {"sampler": "random"},
        {"vary": ("ridge",)},
        {"objective": "kl"},
        {"sampler": "gp"},
        {"sampler": "optuna.samplers:QMCSampler"},
    ],
)
def test_selected_plan_is_never_worse_than_a_warm_start_on_held_out_text(
    changes: Any, workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path, "out", **changes)
    rows, result = trials(out), SearchResult.read(out)
    assert len(rows) == result.trials == 9
    assert {"fisher", "llm-pruner-element"} <= set(result.warm_starts)
    assert result.held_out is not None
    assert result.best.held_out == result.held_out.values
    assert value(result.best.held_out) == min(held_out(rows))
    warm = [value(values) for values in result.held_out.warm_starts.values()]
    assert len(warm) == len(result.warm_starts) and value(result.best.held_out) <= min(warm)
    assert result.held_out.front == (result.best.number,)
    assert result.objectives == (changes.get("objective", "perplexity"),)
    assert result.objective_tokens == Pool.read(workplace.pool).objective.numel() == 6 * 16
    plan = PruningPlan.read(out)
    assert plan.provenance["trial"] == result.best.number
    assert plan.ratio.achieved_blocks == pytest.approx(0.2, abs=0.02)


def test_widths_by_fluctuation_need_no_sensitivity(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    pruning = PRUNING.model_copy(update={"allocation": "fluctuation"})
    out = run(workplace, table, tmp_path, "out", trials=5, pruning=pruning)
    assert SearchResult.read(out).sensitivity is None
    assert PruningPlan.read(out).ratio.achieved_blocks == pytest.approx(0.2, abs=0.02)


def test_held_out_text_never_enters_a_trial(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(workplace.pool, pool)
    replace(Pool.read(pool), held_out=tokens(6, 16, seed=9)).write(pool)
    ours = run(workplace, table, tmp_path, "ours")
    other = run(replace(workplace, pool=pool), table, tmp_path, "other")
    without = [
        [row.model_copy(update={"held_out": None}) for row in trials(o)] for o in (ours, other)
    ]
    assert without[0] == without[1], "the trials and their order are the same"
    assert [row.held_out for row in trials(ours)] != [row.held_out for row in trials(other)]
    assert value(SearchResult.read(ours).best.held_out) == min(held_out(trials(ours)))


def test_trials_and_finalists_are_evaluated_as_updated_models(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path, "out", trials=4)
    pool = Pool.read(workplace.pool)
    texts = {"objective": pool.objective, "held_out": pool.held_out}
    model, plan = ckpt.load_model(workplace.checkpoint, workplace.model), PruningPlan.read(out)
    grams = GramMatrices(table)
    with narrowed(model, plan, grams.updated_projections(model, plan)):
        values = {name: perplexity(model, windows) for name, windows in texts.items()}
    best = SearchResult.read(out).best
    selected = value(best.held_out)
    assert value(best.values) == pytest.approx(values["objective"], rel=1e-5)
    assert selected == pytest.approx(values["held_out"], rel=1e-5)
    with narrowed(model, plan):
        assert perplexity(model, pool.held_out) != pytest.approx(selected, rel=1e-3)
    apply_and_update(model, plan, UpdateText(pool.update), None)
    assert selected == pytest.approx(perplexity(model, pool.held_out), rel=0.02)


def test_protection_varies_only_where_the_ratio_can_be_reached(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    high = PRUNING.model_copy(update={"ratio": 0.25})
    out = run(workplace, table, tmp_path, "out", pruning=high)
    params = [row.params for row in trials(out) if row.name == "trial"]
    assert {row["protect_first"] for row in params} <= {0, 1}
    assert len({(row["protect_first"], row["protect_last"]) for row in params}) > 1


def test_rerun_repeats_no_finished_trial_and_more_trials_continue(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    first = run(workplace, table, tmp_path, "first", trials=6)
    again = run(workplace, table, tmp_path, "again", trials=6)
    assert (first / "plan.json").read_bytes() == (again / "plan.json").read_bytes()
    (study,) = studies(tmp_path)
    assert len(study.trials) == 6
    longer = run(workplace, table, tmp_path, "longer", trials=9)
    assert trials(longer)[:6] == trials(first)
    (study,) = studies(tmp_path)
    assert len(study.trials) == 9


def test_another_ratio_is_another_study(workplace: Workplace, table: Path, tmp_path: Path) -> None:
    run(workplace, table, tmp_path, "one", trials=4)
    other = PRUNING.model_copy(update={"ratio": 0.25})
    run(workplace, table, tmp_path, "two", pruning=other, trials=4)
    assert len(studies(tmp_path)) == 2


@pytest.mark.parametrize("change", [{"device": "mps"}, {"dtype": "bfloat16"}])
def test_device_and_data_type_make_another_study(
    change: Any, workplace: Workplace, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)  # nothing is run on it
    inputs, pool = inputs_of(workplace, table), Pool.read(workplace.pool)
    settings = config(workplace)
    other = settings.model_copy(update={"model": settings.model.model_copy(update=change)})
    one, two = (study_dependencies(inputs, pool, c) for c in (settings, other))
    assert one != two


def test_study_depends_on_every_module_that_evaluates_a_trial() -> None:
    files = {path.name for path in source_files("adapruner.search.search", ("adapruner",))}
    evaluating = {"space", "scores", "metrics", "surgery", "update", "width_profile", "perplexity"}
    assert {f"{name}.py" for name in evaluating} <= files
    assert {"least_squares.py", "bias.py"} <= files, "named in the table of methods"
    assert not {"progress.py", "errors.py", "quality.py", "page.py"} & files


def test_all_warm_starts_are_evaluated_even_for_fewer_trials(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path, "out", trials=1)
    rows, result = trials(out), SearchResult.read(out)
    assert len(rows) == len(result.warm_starts) == 5
    assert value(result.best.held_out) == min(held_out(rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("total", "some", "changes"),
    [(30, 10, {}), (30, 10, {"objective": ("perplexity", "kl"), "sampler": "tpe"})],
)
def test_killed_and_resumed_search_makes_the_same_plan(
    total: int, some: int, changes: Any, workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    changes = {"trials": total, **changes}
    whole = subprocess.Popen(program(workplace, table, tmp_path, "whole", **changes))
    killed = subprocess.Popen(program(workplace, table, tmp_path, "killed", **changes))
    database = tmp_path / "killed.db"
    deadline = time.monotonic() + 120
    while _finished(database) < some and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = _finished(database)
    assert some <= before < total
    (tmp_path / "killed").rename(tmp_path / "gone")
    subprocess.run(program(workplace, table, tmp_path, "killed", **changes), check=True)
    assert whole.wait() == 0
    for file in ("plan.json", "trials.json", "search.json"):
        assert hash_file(tmp_path / "whole" / file) == hash_file(tmp_path / "killed" / file), file


def _finished(database: Path) -> int:
    import sqlite3

    if not database.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            query = "select count(*) from trials where state = 'COMPLETE'"
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_unreachable_ratio_is_refused(workplace: Workplace, table: Path, tmp_path: Path) -> None:
    greedy = PRUNING.model_copy(update={"ratio": 0.9})
    with pytest.raises(UserError, match="can't be reached"):
        run(workplace, table, tmp_path, "out", pruning=greedy)
    assert not any((tmp_path / "out").iterdir())


def test_storage_that_can_not_be_opened_is_refused(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path / 'no' / 'folder.db'}"
    with pytest.raises(UserError, match=r"search\.storage"):
        search(inputs_of(workplace, table), config(workplace), storage, tmp_path)
