"""One candidate, and what the table makes of several."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from adapruner.comparison import candidate, chart as comparison_chart, table as comparison_table
from adapruner.comparison.cells import ComparisonConfig, cells, settings_of
from adapruner.config import RunConfig
from adapruner.importance.statistics import estimate
from adapruner.config.parsing import parse_section
from adapruner.evaluation.tasks import resolve
from tests.adapruner.conftest import Workplace
from tests.models import small_model

METRIC = "made_ppl_seq16"


@pytest.fixture(scope="module")
def table(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table")
    estimate(workplace.checkpoint, workplace.pool, workplace.model, 4, 0, out)
    return out


def config(work: Workplace) -> RunConfig:
    values = {
        "name": "mine", "model": work.model.model_dump(), "calibration": {"source": "t.txt"},
        "search": {"set_size": 4}, "pruning": {"ratio_of": "blocks", "round_to": 4,
        "protect_first": 1, "protect_last": 1}, "registry": {"name": "r"},
        "finetune": {"steps": 2, "batch_size": 2, "sequence_length": 16, "rank": 2},
        "evaluation": {"sequence_length": 16, "max_windows": 6},
    }  # fmt: skip
    return parse_section(RunConfig, values, "f")


def shared(work: Workplace, table: Path, root: Path) -> candidate.Shared:
    """The small pool serves as the folder of test texts, too; nothing is distilled, no tasks."""
    tasks = root / "tasks"
    if not tasks.exists():
        tasks.mkdir()
        resolve(config(work).evaluation, tasks)
    return candidate.Shared(work.checkpoint, work.pool, table, root, work.pool, tasks)


def measured(work: Workplace, table: Path, comparison: ComparisonConfig, root: Path) -> list[Path]:
    """A directory for each cell."""
    outs = []
    for cell in cells(config(work), comparison):
        out = root / cell.key
        out.mkdir()
        settings = settings_of(cell, config(work), comparison)
        candidate.measure(shared(work, table, root), settings, "sqlite://", out)
        outs.append(out)
    return outs


def read(out: Path) -> Any:
    return json.loads((out / candidate.FILE).read_text())


def test_a_candidate_leaves_numbers_and_its_plan_and_no_weights(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    comparison = ComparisonConfig(methods=("flap",), ratios=(0.2, 0.9), finetune=True)
    reachable, beyond = measured(workplace, table, comparison, tmp_path)
    found = read(reachable)
    assert found["pruned"][METRIC] > 1
    assert found["finetuned"][METRIC] > 1
    assert found["finetuned"] != found["pruned"]
    names = {path.name for path in reachable.rglob("*")}
    assert names == {"candidate.json", "stage_seconds.json", "plan.json"}
    seconds = json.loads((reachable / candidate.SECONDS).read_text())
    assert set(seconds) == {"search", "prune", "finetune", "evaluate"}
    assert "can't be reached" in read(beyond)["reason"]
    assert {path.name for path in beyond.rglob("*")} == {"candidate.json", "stage_seconds.json"}


def test_what_a_model_cannot_hold_is_a_reason(workplace: Workplace, tmp_path: Path) -> None:
    small_model("qwen2").save_pretrained(tmp_path / "qwen2")
    comparison = ComparisonConfig(methods=("flap",), ratios=(0.2,))
    other = Workplace(tmp_path / "qwen2", workplace.pool, workplace.model)
    (out,) = measured(other, tmp_path, comparison, tmp_path)
    assert "Qwen2ForCausalLM" in read(out)["reason"]


def test_the_table_has_means_spreads_and_no_number_for_what_is_not_finite(
    workplace: Workplace, tmp_path: Path
) -> None:
    comparison = ComparisonConfig(methods=("fisher", "random", "magnitude"), seeds=(1, 2))
    settings = config(workplace)
    values = {"fisher_0_2_per_layer_0": 30.0, "random_0_2_per_layer_1": 20.0,
              "random_0_2_per_layer_2": 24.0, "magnitude_0_2_per_layer_0": math.inf}  # fmt: skip
    outs = []
    for cell in cells(settings, comparison):
        out = tmp_path / cell.key
        out.mkdir()
        found = {"pruned": {METRIC: values[cell.key]}, "finetuned": None, "params": 100,
                 "achieved_all": 0.1, "achieved_blocks": 0.2}  # fmt: skip
        (out / candidate.FILE).write_text(json.dumps(found))
        (out / candidate.SECONDS).write_text(json.dumps({"search": cell.seed, "prune": 1}))
        outs.append(out)
    content = comparison_table.build(settings, comparison, {METRIC: 10.0}, outs, {"load_model": 3})
    assert json.loads(json.dumps(content, allow_nan=False))["rows"]
    assert [row["method"] for row in content["rows"]] == ["random", "fisher", "magnitude"]
    drawn, fisher, broken = content["rows"]
    assert drawn["pruned"][METRIC] == {
        "mean": 22, "spread": pytest.approx(8**0.5), "min": 20, "max": 24, "to_dense": 2.2,
    }  # fmt: skip
    assert drawn["seconds"] == {"search": 1.5, "prune": 1}
    assert (fisher["pruned"][METRIC]["spread"], fisher["pruned"][METRIC]["to_dense"]) == (None, 3)
    assert set(broken["pruned"][METRIC].values()) == {None}

    lines = comparison_table.markdown(content).splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1
    assert any(line.startswith("| random | 2 | 22.00 ± 2.828 | 2.200 |") for line in rows)
    comparison_chart.write(content, tmp_path)
    drawn_text = (tmp_path / "comparison.svg").read_text()
    for said in ("random", "not finite", METRIC, "20 % of the decoder blocks"):
        assert said in drawn_text
    assert (tmp_path / "comparison.png").stat().st_size > 5000
