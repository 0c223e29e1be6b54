"""Settings that do not suit the layout are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from adapruner.config import RunConfig, presets, with_preset
from adapruner.config.parsing import parse_section
from adapruner.errors import UserError
from tests.adapruner.config.test_presets import parsed

SPARSE: dict[str, Any] = {"layout": "semi_structured"}


def test_the_preset_sets_what_the_layout_needs() -> None:
    config = parsed(method="ast")
    assert (config.pruning.layout, config.pruning.ratio) == ("semi_structured", 0.5)
    assert (config.search.planner, config.search.metric) == ("semi_structured", "magnitude")
    assert (config.reconstruction.method, config.finetune.method) == ("none", "ast")
    assert (config.pruning.protect_first, config.pruning.protect_last) == (0, 0)
    by_hand = parsed(
        pruning=SPARSE,
        search={"planner": "semi_structured", "metric": "wanda"},
        reconstruction={"method": "none"},
        finetune={"method": "none"},
    )
    assert by_hand.pruning == config.pruning
    assert "ast+update" not in presets()


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("pruning", {"ratio": 0.3}, r"pruning.ratio is 0.5 .* got 0.3"),
        ("pruning", {"protect_first": 2}, r"pruning.protect_first is 0 .* got 2"),
        ("pruning", {"attention": "kv_groups"}, r"pruning.attention is none"),
        ("pruning", {"ratio_of": "all"}, r"pruning.ratio_of is blocks"),
        ("pruning", {"experts": "whole"}, r"pruning.experts is channels"),
        ("pruning", {"layout": "uniform"}, r"search.planner semi_structured needs pruning.layout"),
        ("search", {"metric": "searched"}, r"search.metric: magnitude or wanda, got searched"),
        ("search", {"metric": "fisher"}, r"search.metric: magnitude or wanda, got fisher"),
        ("search", {"planner": "importance"}, r"search.planner: semi_structured"),
        ("reconstruction", {"method": "least_squares"}, r"reconstruction.method: none"),
        ("finetune", {"method": "lora"}, r"finetune.method: ast or none, got lora"),
    ],
)
def test_what_has_no_meaning_in_the_layout_is_refused(
    section: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        parsed(method="ast", **{section: settings})
    assert "\n" not in str(refused.value)


def test_ast_needs_the_layout() -> None:
    with pytest.raises(UserError, match=r"finetune.method ast needs pruning.layout"):
        parsed(finetune={"method": "ast"})


def test_branches_are_not_exported() -> None:
    with pytest.raises(UserError, match=r"export.to gguf can't hold the branches"):
        parsed(method="ast", finetune={"branch_rank": 4}, export={"to": ["gguf"]})


def test_the_preset_replaces_settings_of_others_and_gives_way_to_them() -> None:
    other = parsed(pruning={"ratio": 0.3, "protect_first": 3, "attention": "kv_groups"})
    config = with_preset(other, "ast")
    assert config.pruning == parsed(method="ast").pruning
    back = with_preset(config, "flap")
    assert (back.pruning.layout, back.finetune.method) == ("per_layer", "lora")
    assert parse_section(RunConfig, config.model_dump(), "file") == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 0.1}, r"model\.processes 4 needs finetune\.dropout 0, got 0\.1"),
        ({"batch_size": 3}, r"model\.processes 4 needs finetune\.batch_size 4 or more, got 3"),
    ],
)
def test_processes_refuse_training_that_differs_from_that_of_one(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        parsed(model={"source": "x", "processes": 4}, finetune=settings)
    assert "\n" not in str(refused.value)
    for model, method in (({"source": "x"}, "lora"), ({"source": "x", "processes": 4}, "none")):
        parsed(model=model, finetune=settings | {"method": method})
