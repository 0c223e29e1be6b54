"""The search: warm starts, resumption, determinism, and a result never worse than a warm start."""

from __future__ import annotations

import ast
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
from safetensors.torch import load_file, save_file

from adapruner.models import checkpoint as ckpt
from adapruner.search import search as library
from adapruner.config import PruningConfig, ReconstructionConfig, SearchConfig
from adapruner.errors import UserError
from adapruner.hashing import hash_file
from adapruner.importance.statistics import estimate
from adapruner.evaluation.perplexity import perplexity
from adapruner.pruning.plan import FILE as PLAN
from adapruner.pruning.plan import read_plan
from adapruner.pruning.reconstruction.least_squares import RIDGE, apply_and_update
from adapruner.pruning.gram_matrices import gather, updates
from adapruner.search.search import depends_on, search
from adapruner.pruning.surgery import narrowed
from tests.adapruner.conftest import Workplace
from tests.models import tokens

PRUNING = PruningConfig(ratio=0.2, ratio_of="blocks", protect_first=1, protect_last=1, round_to=4)
SEARCH = SearchConfig(trials=9, set_size=4)
UPDATE = ReconstructionConfig()

PROGRAM = """
import json, sys
from pathlib import Path
from adapruner.config import ModelConfig, PruningConfig, ReconstructionConfig, SearchConfig
from adapruner.importance import estimate
from adapruner.search import search
given = json.loads(sys.argv[1])
model = ModelConfig(**given["model"])
checkpoint, pool, out = map(Path, (given["checkpoint"], given["pool"], given["out"]))
(out / "table").mkdir(parents=True)
(out / "search").mkdir()
estimate(checkpoint, pool, model, 4, 0, out / "table")
search(checkpoint, pool, out / "table", model, SearchConfig(**given["search"]),
       PruningConfig(**given["pruning"]), ReconstructionConfig(), 0, given["storage"],
       out / "search")
"""


@pytest.fixture(scope="module")
def table(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table")
    estimate(workplace.checkpoint, workplace.pool, workplace.model, 4, 0, out)
    return out


def run(work: Workplace, table: Path, root: Path, name: str, **changes: Any) -> Path:
    out = root / name
    out.mkdir()
    settings = SEARCH.model_copy(update=changes)
    storage = f"sqlite:///{root / 'studies.db'}"
    search(
        work.checkpoint,
        work.pool,
        table,
        work.model,
        settings,
        PRUNING,
        UPDATE,
        0,
        storage,
        out,
    )
    return out


def trials(out: Path) -> Any:
    return json.loads((out / "trials.json").read_text())


def studies(root: Path) -> list[optuna.Study]:
    storage = f"sqlite:///{root / 'studies.db'}"
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def program(work: Workplace, root: Path, name: str, count: int) -> list[str]:
    given = {
        "model": work.model.model_dump(), "checkpoint": str(work.checkpoint),
        "pool": str(work.pool), "out": str(root / name),
        "search": SEARCH.model_dump(exclude_none=True) | {"trials": count},
        "pruning": PRUNING.model_dump(), "storage": f"sqlite:///{root / f'{name}.db'}",
    }  # fmt: skip
    return [sys.executable, "-c", PROGRAM, json.dumps(given)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"samples": "slots"},
        {"scaling": "aligned"},
        {"sampler": "random"},
        {"vary": ()},
        {"objective": "kl"},
        {"sampler": "gp"},
        {"sampler": "optuna.samplers:QMCSampler"},
    ],
)
def test_never_worse_than_a_warm_start(
    changes: Any, workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path, "out", **changes)
    rows = trials(out)
    summary = json.loads((out / "summary.json").read_text())
    assert len(rows) == 9
    assert {"fisher", "llm-pruner-element"} <= set(summary["warm_starts"])
    judged = {row["number"]: row["held_out"] for row in rows if row["held_out"] is not None}
    assert summary["best"]["held_out"] == min(judged.values())
    assert summary["best"]["held_out"] <= min(summary["held_out"]["warm_starts"].values())
    objective = load_file(workplace.pool / "pool.safetensors")["objective"]
    assert summary["objective_tokens"] == objective.numel() == 6 * 16
    plan = read_plan(out / "plan.json")
    assert plan.provenance["trial"] == summary["best"]["number"]
    assert plan.ratio.achieved_blocks == pytest.approx(0.2, abs=0.02)


def test_held_out_text_never_enters_a_trial(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(workplace.pool, pool)
    texts = load_file(pool / "pool.safetensors")
    save_file(texts | {"held_out": tokens(6, 16, seed=9)}, pool / "pool.safetensors")
    ours = run(workplace, table, tmp_path, "ours")
    other = run(replace(workplace, pool=pool), table, tmp_path, "other")
    first, second = trials(ours), trials(other)
    judged = [[row.pop("held_out") for row in rows] for rows in (first, second)]
    assert first == second, "the trials and their order are the same"
    assert judged[0] != judged[1]
    best = json.loads((ours / "summary.json").read_text())["best"]
    assert best["held_out"] == min(v for v in judged[0] if v is not None)


def test_trials_and_finalists_are_judged_with_the_update(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path, "out", trials=4)
    texts = load_file(workplace.pool / "pool.safetensors")
    model, plan = ckpt.load_model(workplace.checkpoint, workplace.model), read_plan(out / PLAN)
    gather(model, texts["update"], tmp_path)
    with narrowed(model, plan, updates(model, tmp_path, RIDGE, plan)):
        judged = {name: perplexity(model, texts[name]) for name in ("objective", "held_out")}
    best = json.loads((out / "summary.json").read_text())["best"]
    assert best["value"] == pytest.approx(judged["objective"], rel=1e-5)
    assert best["held_out"] == pytest.approx(judged["held_out"], rel=1e-5)
    with narrowed(model, plan):
        assert perplexity(model, texts["held_out"]) != pytest.approx(best["held_out"], rel=1e-3)
    apply_and_update(model, plan, texts["update"], None)
    shipped = perplexity(model, texts["held_out"])
    assert best["held_out"] == pytest.approx(shipped, rel=0.02)


def test_protection_stays_where_the_ratio_can_be_met(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    high = PRUNING.model_copy(update={"ratio": 0.25})
    out = tmp_path / "out"
    out.mkdir()
    given = (workplace.checkpoint, workplace.pool, table, workplace.model)
    search(*given, SEARCH, high, UPDATE, 0, f"sqlite:///{tmp_path / 'studies.db'}", out)
    spelt = [row["params"] for row in trials(out) if row["name"] == "trial"]
    assert {row["protect_first"] for row in spelt} <= {0, 1}
    assert len({(row["protect_first"], row["protect_last"]) for row in spelt}) > 1


def test_a_rerun_repeats_no_finished_trial_and_more_trials_go_on(
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
    out = tmp_path / "two"
    out.mkdir()
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    other = PRUNING.model_copy(update={"ratio": 0.25})
    search(workplace.checkpoint, workplace.pool, table, workplace.model, SEARCH, other, UPDATE, 0,
           storage, out)  # fmt: skip
    assert len(studies(tmp_path)) == 2


@pytest.mark.parametrize("change", [{"device": "mps"}, {"dtype": "bfloat16"}])
def test_what_computes_a_trial_tells_studies_apart(
    change: Any, workplace: Workplace, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)  # nothing is run on it
    texts = load_file(workplace.pool / "pool.safetensors")
    models = [workplace.model, workplace.model.model_copy(update=change)]
    one, other = (depends_on(table, texts, m, SEARCH, PRUNING, UPDATE, 0) for m in models)
    assert one != other


def test_a_study_is_of_every_module_that_decides() -> None:
    folder = Path(str(library.__file__)).parent
    harmless = {"config", "errors", "hashing", "progress"}  # their values are in the name, or none
    reached, open_ = {"search"}, ["search"]
    while open_:
        for name in imports(folder / f"{open_.pop()}.py") - reached - harmless:
            reached.add(name)
            open_.append(name)
    deciding = {Path(str(module.__file__)).stem for module in library._DECIDING}
    assert reached == deciding | {"search"}


def imports(file: Path) -> set[str]:
    """The modules of the library that a file of it imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "adapruner":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adapruner."):
            found.add(str(node.module).removeprefix("adapruner."))
    return found


def test_all_warm_starts_are_considered_however_few_trials_are_asked_for(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = run(workplace, table, tmp_path, "out", trials=1)
    rows, summary = trials(out), json.loads((out / "summary.json").read_text())
    assert len(rows) == len(summary["warm_starts"]) == 5
    assert summary["best"]["held_out"] == min(summary["held_out"]["warm_starts"].values())


@pytest.mark.slow
def test_two_processes_make_the_same_plan_also_when_one_was_killed(
    workplace: Workplace, tmp_path: Path
) -> None:
    whole = subprocess.Popen(program(workplace, tmp_path, "whole", 120))
    killed = subprocess.Popen(program(workplace, tmp_path, "killed", 120))
    database = tmp_path / "killed.db"
    deadline = time.monotonic() + 120
    while _finished(database) < 40 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = _finished(database)
    assert 40 <= before < 120
    (tmp_path / "killed").rename(tmp_path / "gone")
    subprocess.run(program(workplace, tmp_path, "killed", 120), check=True)
    assert whole.wait() == 0
    for file in ("table/importance.safetensors", "search/plan.json", "search/trials.json"):
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


def test_an_unreachable_ratio_is_refused(workplace: Workplace, table: Path, tmp_path: Path) -> None:
    greedy = PRUNING.model_copy(update={"ratio": 0.9})
    with pytest.raises(UserError, match="can't be reached"):
        search(workplace.checkpoint, workplace.pool, table, workplace.model, SEARCH, greedy,
               UPDATE, 0, f"sqlite:///{tmp_path / 'studies.db'}", tmp_path)  # fmt: skip
    assert not (tmp_path / "plan.json").exists()


def test_a_storage_that_is_none_is_refused(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"search\.storage"):
        search(workplace.checkpoint, workplace.pool, table, workplace.model, SEARCH, PRUNING,
               UPDATE, 0, f"sqlite:///{tmp_path / 'no' / 'folder.db'}", tmp_path)  # fmt: skip
