"""Presets: defaults that a file's sections override."""

from __future__ import annotations

from typing import Any

import pytest

from adapruner.config import RunConfig, presets, with_preset
from adapruner.config.parsing import parse_section
from adapruner.errors import UserError
from adapruner.importance.metrics import METRICS

FILE: dict[str, Any] = {
    "name": "mine", "model": {"source": "m"}, "calibration": {"source": "t.txt"},
    "registry": {"name": "r"},
}  # fmt: skip


def parsed(**changes: Any) -> RunConfig:
    return parse_section(RunConfig, FILE | changes, "file")


def test_every_preset_sets_the_keys_of_the_default() -> None:
    keys = {
        (section, key)
        for section, settings in presets()["adapruner"].settings.items()
        for key in settings
    }
    for preset in presets().values():
        assert all(preset.setting(*key) is not None for key in keys)


def test_preset_sets_defaults_and_sections_override_them() -> None:
    assert parsed() == parsed(method="adapruner")
    fisher = parsed(method="fisher")
    assert (fisher.search.metric, fisher.reconstruction.method) == ("fisher", "none")
    config = parsed(method="fisher", reconstruction={"method": "least_squares"})
    assert (config.search.metric, config.reconstruction.method) == ("fisher", "least_squares")


@pytest.mark.parametrize("name", presets())
def test_configuration_with_a_preset_survives_serialization(name: str) -> None:
    config = parsed(method=name)
    assert parse_section(RunConfig, config.model_dump(), "file") == config
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", presets())
def test_one_preset_replaces_another(name: str) -> None:
    target = parsed(method=name)
    other = parsed(method="flap", search={"trials": 5})
    replaced = with_preset(other, name)
    assert replaced.search == target.search.model_copy(update={"trials": 5})
    assert replaced.model_copy(update={"search": target.search}) == target
    assert with_preset(replaced, name) == replaced


def test_saap_has_widths_by_fluctuation_in_the_layout_that_allows_them() -> None:
    config = parsed(method="saap")
    assert (config.pruning.allocation, config.pruning.layout) == ("fluctuation", "per_layer")
    assert (config.search.metric, config.search.fusion) == ("saap", "learned")
    with pytest.raises(UserError, match="fluctuation gives each layer its own width"):
        parsed(method="saap", pruning={"layout": "uniform"})
    other = with_preset(config, "fisher")
    assert (other.pruning.allocation, other.search.fusion) == ("auto", "layer_mean")


def test_every_metric_with_a_preset_name_is_a_method() -> None:
    for name, metric in METRICS.items():
        if metric.preset is not None:
            settings = presets()[metric.preset].settings
            assert settings["search"]["metric"] == name
            assert settings["reconstruction"]["method"] == metric.reconstruction


def test_unknown_method_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"file: 'method' is 'fischer': .*'fisher'"):
        parsed(method="fischer")
    with pytest.raises(ValueError, match="'flap'"):
        with_preset(parsed(), "flapp")
