"""Presets: defaults for what a file leaves open, and each a plan of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapruner.config import PruningConfig, RunConfig
from adapruner.errors import UserError
from adapruner.importance.statistics import estimate
from adapruner.config import presets, with_preset
from adapruner.config.parsing import parse_section
from adapruner.pruning.plan import read_plan
from adapruner.report.build import build_report
from adapruner.report.page import page
from adapruner.report.sections import Inputs
from adapruner.search.search import search
from tests.adapruner.conftest import Workplace

FILE: dict[str, Any] = {
    "name": "mine", "model": {"source": "m"}, "calibration": {"source": "t.txt"},
    "registry": {"name": "r"},
}  # fmt: skip
PRUNING = PruningConfig(ratio=0.2, ratio_of="blocks", protect_first=1, protect_last=1, round_to=4)


def test_every_preset_spells_the_same_keys() -> None:
    spelt = {
        tuple((section, *settings) for section, settings in method.settings.items())
        for method in presets().values()
    }
    assert len(spelt) == 1


def test_a_preset_gives_defaults_and_what_is_spelt_wins() -> None:
    assert parse_section(RunConfig, FILE, "f") == parse_section(RunConfig, FILE | {"method": "adapruner"}, "f")
    fisher = parse_section(RunConfig, FILE | {"method": "fisher"}, "f")
    assert (fisher.search.metric, fisher.reconstruction.method) == ("fisher", "none")
    own = FILE | {"method": "fisher", "reconstruction": {"method": "least_squares"}}
    config = parse_section(RunConfig, own, "f")
    assert (config.search.metric, config.reconstruction.method) == ("fisher", "least_squares")
    assert parse_section(RunConfig, config.model_dump(), "f") == config
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", presets())
def test_a_method_replaces_another(name: str) -> None:
    asked = parse_section(RunConfig, FILE | {"method": name}, "f")
    other = parse_section(RunConfig, FILE | {"method": "flap", "search": {"trials": 5}}, "f")
    replaced = with_preset(other, name)
    assert replaced.search == asked.search.model_copy(update={"trials": 5})
    assert replaced.model_copy(update={"search": asked.search}) == asked
    assert with_preset(replaced, name) == replaced


def test_an_unknown_method_is_one_line_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"f: 'method' is 'fischer': .* did you mean 'fisher'"):
        parse_section(RunConfig, FILE | {"method": "fischer"}, "f")
    with pytest.raises(UserError, match="did you mean 'flap'"):
        with_preset(parse_section(RunConfig, FILE, "f"), "flapp")
    with pytest.raises(UserError, match="'search' is 3"):
        parse_section(RunConfig, FILE | {"search": 3}, "f")


@pytest.fixture(scope="module")
def table(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table")
    estimate(workplace.checkpoint, workplace.pool, workplace.model, 4, 0, out)
    return out


def decided(work: Workplace, table: Path, name: str, root: Path, seed: int = 0) -> Path:
    settings = parse_section(RunConfig, FILE | {"method": name, "search": {"trials": 4, "set_size": 4}}, "f")
    out = root / f"{name}{seed}"
    out.mkdir()
    search(work.checkpoint, work.pool, table, work.model, settings.search, PRUNING,
           settings.reconstruction, seed,
           f"sqlite:///{root / 'studies.db'}", out)  # fmt: skip
    return out


FIXED = [name for name, m in presets().items() if m.settings["search"]["metric"] != "searched"]


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_score_runs_no_trial_and_can_be_reported(
    name: str, workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    out = decided(workplace, table, name, tmp_path)
    metric = presets()[name].settings["search"]["metric"]
    (row,) = json.loads((out / "trials.json").read_text())
    summary = json.loads((out / "summary.json").read_text())
    assert row["name"] == metric
    assert summary["best"]["value"] == row["value"] > 1
    assert summary["dense_value"] > 1
    plan = read_plan(out / "plan.json")
    assert plan.provenance["method"] == metric
    assert plan.ratio.achieved_blocks == pytest.approx(0.2, abs=0.02)
    assert not (tmp_path / "studies.db").exists()
    config = parse_section(RunConfig, FILE | {"method": name}, "f")
    report = build_report(Inputs(config, {"search": out}, {"search": 1.0}, {}))
    assert metric in page(report)


def test_the_methods_differ_and_only_the_random_ones_follow_the_seed(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    def layers(name: str, seed: int) -> Any:
        return read_plan(decided(workplace, table, name, tmp_path, seed) / "plan.json").layers

    assert len({layers(name, 0) for name in FIXED}) == len(FIXED)
    assert layers("random", 1) != layers("random", 2)
    for name in ("fisher", "flap", "wanda-sp", "magnitude"):
        assert not presets()[name].random
        assert layers(name, 1) == layers(name, 2)
