"""The table and the chart of a comparison."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from adapruner.comparison import chart
from adapruner.comparison.candidate import STAGE_SECONDS, CandidateResult
from adapruner.comparison.cells import ComparisonConfig, cells
from adapruner.comparison.table import build, markdown
from adapruner.files import write_json
from tests.adapruner.comparison.test_candidate import METRIC, config
from tests.adapruner.conftest import Workplace


def test_table_has_means_and_spreads_and_null_for_numbers_that_are_not_finite(
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
        CandidateResult(
            pruned={METRIC: values[cell.key]},
            params=100,
            achieved=0.1,
            achieved_all=0.1,
            achieved_blocks=0.2,
        ).write(out)
        write_json(out / STAGE_SECONDS, {"search": cell.seed, "prune": 1})
        outs.append(out)
    content = build(settings, comparison, {METRIC: 10.0}, outs, {"load_model": 3})
    assert json.loads(json.dumps(content, allow_nan=False))["rows"]
    assert [row["method"] for row in content["rows"]] == ["random", "fisher", "magnitude"]
    drawn, fisher, broken = content["rows"]
    assert drawn["pruned"][METRIC] == {
        "mean": 22, "spread": pytest.approx(8**0.5), "min": 20, "max": 24, "to_dense": 2.2,
    }  # fmt: skip
    assert drawn["seconds"] == {"search": 1.5, "prune": 1}
    assert (fisher["pruned"][METRIC]["spread"], fisher["pruned"][METRIC]["to_dense"]) == (None, 3)
    assert set(broken["pruned"][METRIC].values()) == {None}

    lines = markdown(content).splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1
    assert any(line.startswith("| random | 2 | 22.00 ± 2.828 | 2.200 |") for line in rows)
    chart.write(content, tmp_path)
    drawn_text = (tmp_path / "comparison.svg").read_text()
    for label in ("random", "not finite", METRIC, "20 % of the decoder blocks"):
        assert label in drawn_text
    assert (tmp_path / "comparison.png").stat().st_size > 5000
