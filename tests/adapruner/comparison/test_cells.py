"""The cells of a comparison."""

from __future__ import annotations

from typing import Any

import pytest

from adapruner.comparison.cells import (
    ComparisonConfig,
    candidate_config,
    cells,
    serving,
    uses_reference,
)
from adapruner.config import PruningConfig, RunConfig, ServingConfig, presets
from adapruner.config.parsing import parse_section
from adapruner.errors import UserError

VALUES: dict[str, Any] = {
    "name": "mine", "seed": 5, "model": {"source": "m"}, "calibration": {"source": "t.txt"},
    "registry": {"name": "r"},
}  # fmt: skip
CONFIG = parse_section(RunConfig, VALUES, "test")


def test_random_methods_run_with_every_seed_and_others_once() -> None:
    comparison = ComparisonConfig(methods=("fisher", "random"), ratios=(0.2, 0.3), seeds=(1, 2))
    found = cells(CONFIG, comparison)
    assert len({cell.key for cell in found}) == len(found) == 2 * (1 + 2)
    assert {cell.seed for cell in found if cell.method == "fisher"} == {5}


def test_candidate_has_the_settings_of_its_method_ratio_and_layout() -> None:
    comparison = ComparisonConfig(
        methods=("flap",), ratios=(0.5,), layouts=("uniform",), at_ratio={0.5: {"round_to": 16}}
    )
    (cell,) = cells(CONFIG, comparison)
    settings = candidate_config(cell, CONFIG, comparison)
    assert (settings.search.metric, settings.reconstruction.method) == ("flap", "bias")
    assert (settings.pruning.ratio, settings.pruning.layout) == (0.5, "uniform")
    assert settings.pruning.round_to == 16
    assert settings.finetune.method == "none"


def test_the_dense_model_is_checked_against_each_layout_and_width_once() -> None:
    comparison = ComparisonConfig(
        methods=("fisher", "flap"),
        ratios=(0.2, 0.5),
        layouts=("per_layer", "uniform"),
        at_ratio={0.5: {"round_to": 16}},
    )
    checked = serving(CONFIG, comparison)
    assert [(p.layout, p.round_to) for p in checked.results] == [
        ("per_layer", 8), ("uniform", 8), ("per_layer", 16), ("uniform", 16),
    ]  # fmt: skip
    assert checked.to == ()
    alone = ComparisonConfig(methods=("fisher",), ratios=(0.2, 0.5))
    assert serving(CONFIG, alone) == CONFIG.serving == ServingConfig.of([PruningConfig()])


@pytest.mark.parametrize("name", presets())
def test_only_methods_of_random_samples_use_the_reference_subset(name: str) -> None:
    (cell,) = cells(CONFIG, ComparisonConfig(methods=(name,), seeds=(0,)))
    assert uses_reference(cell) == (presets()[name].is_random and not name.startswith("random"))


@pytest.mark.parametrize(
    "values",
    [
        {"methods": ["fischer"]},
        {"methods": ["fisher", "fisher"]},
        {"ratios": [0.2], "at_ratio": {0.3: {"round_to": 16}}},
    ],
)
def test_invalid_comparison_is_refused(values: Any) -> None:
    with pytest.raises(UserError):
        parse_section(ComparisonConfig, values, "file", "comparison")
