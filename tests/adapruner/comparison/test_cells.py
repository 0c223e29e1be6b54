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
    assert serving(CONFIG, alone) == ServingConfig.of([PruningConfig()], context=128)
    prompts = {"prompts": CONFIG.evaluation.prompts}  # which a comparison does not use
    assert CONFIG.serving == serving(CONFIG, alone).model_copy(update=prompts)


@pytest.mark.parametrize("name", presets())
def test_only_methods_of_random_samples_use_the_reference_subset(name: str) -> None:
    comparison = ComparisonConfig(methods=(name,), seeds=(0,))
    (cell,) = cells(CONFIG, comparison)
    uses_samples = presets()[name].is_random and not name.startswith(("random", "disp-llm"))
    assert uses_reference(candidate_config(cell, CONFIG, comparison)) == uses_samples


def test_variant_is_its_preset_with_other_settings() -> None:
    values = {
        "methods": ["flap", "flap-with-update"],
        "variants": {
            "flap-with-update": {
                "method": "flap",
                "settings": {
                    "reconstruction": {"method": "least_squares"}, "pruning": {"round_to": 32},
                },
            }
        },
        "finetune": True,
    }  # fmt: skip
    comparison = parse_section(ComparisonConfig, values, "file", "comparison")
    plain, variant = (
        candidate_config(cell, CONFIG, comparison) for cell in cells(CONFIG, comparison)
    )
    assert variant.search == plain.search
    assert (plain.reconstruction.method, plain.pruning.round_to) == ("bias", 8)
    assert (variant.reconstruction.method, variant.pruning.round_to) == ("least_squares", 32)


def test_layout_and_ratio_of_a_method_replace_those_of_the_comparison() -> None:
    own = {"pruning": {"layout": "uniform", "ratio": 0.5}}
    comparison = ComparisonConfig(
        methods=("flap", "fixed"),
        variants={"fixed": {"method": "flap", "settings": own}},
        ratios=(0.2, 0.3),
        layouts=("per_layer", "uniform"),
    )
    found = cells(CONFIG, comparison)
    assert [c.ratio for c in found] == [0.2, 0.2, 0.3, 0.3, 0.5]
    plan = candidate_config(found[-1], CONFIG, comparison)
    assert (plan.pruning.layout, plan.pruning.ratio) == ("uniform", 0.5)


def test_invalid_setting_of_a_variant_is_one_line() -> None:
    variants = {"mine": {"method": "flap", "settings": {"pruning": {"round": 8}}}}
    comparison = ComparisonConfig(methods=("mine",), variants=variants)
    (cell,) = cells(CONFIG, comparison)
    with pytest.raises(UserError, match=r"unknown key 'pruning.round'; did you mean 'round_to'"):
        candidate_config(cell, CONFIG, comparison)


@pytest.mark.parametrize(
    "values",
    [
        {"variants": {"flap": {"method": "fisher", "settings": {}}}},
        {"variants": {"mine": {"method": "fischer", "settings": {}}}},
        {"methods": ["mine"]},
        {"methods": ["fischer"]},
        {"methods": ["fisher", "fisher"]},
        {"ratios": [0.2], "at_ratio": {0.3: {"round_to": 16}}},
    ],
)
def test_invalid_comparison_is_refused(values: Any) -> None:
    with pytest.raises(UserError):
        parse_section(ComparisonConfig, values, "file", "comparison")


def test_the_sparse_layout_is_for_its_method_alone() -> None:
    comparison = ComparisonConfig(methods=("fisher",), layouts=("semi_structured",), ratios=(0.5,))
    (cell,) = cells(CONFIG, comparison)
    with pytest.raises(UserError, match=r"comparison of fisher .*pruning\.") as refused:
        candidate_config(cell, CONFIG, comparison)
    assert "\n" not in str(refused.value)
