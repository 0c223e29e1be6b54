"""Importance metrics without a search: one plan each, no trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import PlanConfig, PruningConfig, RunConfig, presets
from adapruner.config.parsing import parse_section
from adapruner.config.presets import UPDATED
from adapruner.config.search import SEARCHED
from adapruner.pruning.plan import LayerPlan, PruningPlan
from adapruner.search.inputs import SearchInputs
from adapruner.search.results import SearchResult, Trials
from adapruner.search.search import search
from tests.adapruner.conftest import Workplace, write_gram_matrices, write_importance

PRUNING = PruningConfig(ratio=0.2, ratio_of="blocks", protect_first=1, protect_last=1, round_to=4)
SINGLE = [
    name
    for name, preset in presets().items()
    if preset.setting("search", "planner") == "importance"
    and preset.setting("search", "metric") != SEARCHED
]


@pytest.fixture(scope="module")
def table(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table")
    write_importance(workplace, out)
    write_gram_matrices(workplace, out)
    return out


def planned(work: Workplace, table: Path, name: str, root: Path, seed: int = 0) -> Path:
    values = {
        "name": "mine", "method": name, "seed": seed, "model": work.model.model_dump(),
        "calibration": {"source": "t.txt"}, "registry": {"name": "r"},
        "search": {"trials": 4, "set_size": 4}, "pruning": PRUNING.model_dump(),
    }  # fmt: skip
    config: PlanConfig = parse_section(RunConfig, values, "test").plan_config
    out = root / f"{name}{seed}"
    out.mkdir()
    inputs = SearchInputs(work.checkpoint, work.pool, table, table, table)
    search(inputs, config, f"sqlite:///{root / 'studies.db'}", out)
    return out


@pytest.mark.parametrize("name", SINGLE)
def test_metric_makes_a_plan_without_a_study(
    name: str, workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = planned(workplace, table, name, tmp_path)
    metric = presets()[name].settings["search"]["metric"]
    (trial,), result = Trials.read(out).trials, SearchResult.read(out)
    assert trial.name == metric
    assert result.best.values == trial.values
    assert trial.values["perplexity"] > 1
    assert result.dense_values["perplexity"] > 1
    plan = PruningPlan.read(out)
    assert plan.provenance["method"] == metric
    assert plan.ratio.achieved_blocks == pytest.approx(0.2, abs=0.02)
    assert not (tmp_path / "studies.db").exists()


def test_metrics_differ_and_only_random_ones_follow_the_seed(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    def layers(name: str, seed: int) -> tuple[LayerPlan, ...]:
        return PruningPlan.read(planned(workplace, table, name, tmp_path, seed)).layers

    plain = [name for name in SINGLE if not name.endswith(UPDATED)]
    assert len({layers(name, 0) for name in plain}) == len(plain)
    assert layers("random", 1) != layers("random", 2)
    for name in ("fisher", "flap", "wanda-sp", "magnitude"):
        assert not presets()[name].is_random
        assert layers(name, 1) == layers(name, 2)
