"""Widths by the importance fluctuation of the layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from adapruner.config import PruningConfig
from adapruner.config.parsing import parse_section
from adapruner.errors import UserError
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score_with_fluctuation
from adapruner.importance.statistics import importance_table
from adapruner.models.structures import describe_model
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import scores, structures
from tests.models import KINDS, small_model, tokens

SIGNS = ("remove_unstable", "keep_unstable")


def settings(**changes: Any) -> PruningConfig:
    ends = {"protect_first": 1, "protect_last": 1}
    return PruningConfig(**{"allocation": "fluctuation", "ratio": 0.2, **ends, **changes})


def test_layers_lose_channels_in_proportion_to_their_fluctuation() -> None:
    shape = structures(depth=5)
    unstable = {"mlp": torch.tensor([9.0, 0.2, 0.1, 0.1, 9.0]).double()}
    drawn = replace(scores(shape), fluctuation=unstable)
    config = settings(ratio=0.2, ratio_of="blocks", round_to=1)
    plan = allocate(drawn, PruningTarget(shape, config), {})
    removed = [1536 - len(layer.channels()) for layer in plan.layers]
    assert removed[0] == removed[4] == 0, "protected layers stay whole"
    assert removed[1] == pytest.approx(2 * removed[2], abs=2)
    assert removed[2] == pytest.approx(removed[3], abs=1)
    assert plan.ratio.achieved_blocks == pytest.approx(0.2, abs=1e-3)

    other = config.model_copy(update={"fluctuation": "keep_unstable"})
    plan = allocate(drawn, PruningTarget(shape, other), {})
    removed = [1536 - len(layer.channels()) for layer in plan.layers]
    assert 2 * removed[1] == pytest.approx(removed[2], abs=2)
    assert plan.ratio.achieved_blocks == pytest.approx(0.2, abs=1e-3)


def test_fluctuation_decides_before_scores_that_compare_and_the_width_profile() -> None:
    shape = structures(depth=6)
    of_layers = torch.tensor([1.0, 1, 3, 1, 1, 1]).double()
    drawn = replace(scores(shape), comparable=True, fluctuation={"mlp": of_layers})
    sensitivity = torch.ones(6, 4).double().cumsum(1)
    plan = allocate(drawn, PruningTarget(shape, settings()), {}, sensitivity, 1.0)
    widths = [len(layer.channels()) for layer in plan.layers]
    assert widths[2] < min(widths[1], widths[3], widths[4])


def test_layer_that_would_lose_all_its_channels_keeps_some() -> None:
    shape = structures(depth=6)
    of_layers = torch.tensor([1.0, 1, 100, 1, 1, 1]).double()
    drawn = replace(scores(shape), fluctuation={"mlp": of_layers})
    plan = allocate(drawn, PruningTarget(shape, settings()), {})
    widths = [len(layer.channels()) for layer in plan.layers]
    assert widths[2] == 8
    assert max(widths[1], widths[3], widths[4]) < 1536, "the others make up the rest"
    assert plan.ratio.achieved_all == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("attention", ["auto", "kv_groups"])
def test_ratio_is_met_in_every_family(kind: str, sign: Any, attention: Any) -> None:
    model = small_model(kind)
    shape = describe_model(model)
    if attention != "auto" and shape.family.couples_heads:
        pytest.skip("its heads can't be removed")
    table = importance_table(model, tokens(6, 10), [0, 3])
    drawn = score_with_fluctuation(table, Recipe(metric="saap", samples=tuple(range(6))))
    config = settings(
        ratio_of="blocks", round_to=8 if shape.has_experts else 2, fluctuation=sign,
        attention=attention,
    )  # fmt: skip
    target = PruningTarget(shape, config)
    plan = allocate(drawn, target, {})
    assert plan.ratio.achieved_blocks == pytest.approx(0.2, abs=0.04)
    assert plan.layers[0].channels() == list(range(shape.layers[0].mlp_channels))


def test_attention_follows_its_own_fluctuation() -> None:
    shape = structures(depth=6, query_heads=8, kv_groups=8)
    equal = torch.ones(6).double()
    unstable = torch.tensor([1.0, 0.2, 2, 1, 1, 1]).double()
    drawn = replace(scores(shape), fluctuation={"mlp": equal, "attention": unstable})
    target = PruningTarget(shape, settings(ratio=0.2, attention="kv_groups"))
    plan = allocate(drawn, target, {})
    heads = [len(layer.heads()) for layer in plan.layers]
    assert heads[0] == heads[5] == 8
    assert heads[2] < heads[3] == heads[4] < heads[1]
    assert plan.ratio.achieved_all == pytest.approx(0.2, abs=1e-3)


def test_uniform_layout_is_refused_with_one_line() -> None:
    values = {"allocation": "fluctuation", "layout": "uniform"}
    with pytest.raises(UserError, match="allocation fluctuation gives each layer its own width"):
        parse_section(PruningConfig, values, "file", "pruning")
