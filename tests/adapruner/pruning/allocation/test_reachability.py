"""A ratio that can't be reached is refused with one that can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.models.structures import LayerWidths
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import scores, sensitivity, structures, unequal


@pytest.mark.parametrize("changes", [{"ratio": 0.6}, {"ratio": 0.59, "layout": "uniform"}])
def test_unreachable_ratio_is_refused_with_the_reachable_one(changes: Any) -> None:
    shape = structures()
    with pytest.raises(UserError, match=r"at most 0\.\d+ can be removed; lower pruning.ratio") as e:
        allocate(scores(shape), PruningTarget(shape, PruningConfig(**changes)), {})
    most = float(str(e.value).split("at most ")[1].split(" ")[0])
    reached = PruningConfig(**changes | {"ratio": most - 0.001})
    plan = allocate(scores(shape), PruningTarget(shape, reached), {})
    assert plan.ratio.achieved_all == pytest.approx(most, abs=0.004)


@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
def test_ratio_that_rounds_to_nothing_is_refused_with_the_smallest_one(
    layout: Any,
) -> None:
    shape = structures()
    requested = {"ratio": 1e-4, "layout": layout, "round_to": 64}
    with pytest.raises(UserError, match=r"ratio 0.0001 of all rounds to nothing") as e:
        allocate(scores(shape), PruningTarget(shape, PruningConfig(**requested)), {})
    least = float(str(e.value).split("at least ")[1].split(" ")[0])
    reached = PruningConfig(**requested | {"ratio": least})
    plan = allocate(scores(shape), PruningTarget(shape, reached), {})
    assert plan.ratio.achieved_all == pytest.approx(least, rel=0.05)


@pytest.mark.parametrize("attention", ["none", "kv_groups"])
def test_uniform_is_refused_for_layers_that_would_differ(attention: Any) -> None:
    shape = unequal(LayerWidths(1536, 3, 3))
    pruning = PruningConfig(layout="uniform", ratio_of="blocks", attention=attention)
    with pytest.raises(UserError, match="the model's layers differ"):
        allocate(scores(shape), PruningTarget(shape, pruning), {})
    per_layer = pruning.model_copy(update={"layout": "per_layer"})
    assert allocate(scores(shape), PruningTarget(shape, per_layer), {}).layout == "per_layer"


def test_uniform_is_refused_when_the_narrowest_layer_removes_more_than_requested() -> None:
    shape = unequal(LayerWidths(512, 9, 9))
    pruning = PruningConfig(ratio=0.1, layout="uniform", ratio_of="blocks", attention="none")
    with pytest.raises(UserError, match=r"ratio 0\.1 of blocks can't be reached") as e:
        allocate(scores(shape), PruningTarget(shape, pruning), {})
    nearest = float(str(e.value).split("the nearest is ")[1].split(";")[0])
    assert nearest > 0.3
    reached = pruning.model_copy(update={"ratio": nearest})
    plan = allocate(scores(shape), PruningTarget(shape, reached), {})
    assert {len(layer.channels()) for layer in plan.layers} == {512}


@settings(max_examples=60, deadline=None)
@given(
    ratio=st.floats(0.05, 0.45), share=st.floats(0, 1), round_to=st.sampled_from([1, 8, 64]),
    depth=st.integers(7, 10), channels=st.sampled_from([1536, 1000]),
    groups=st.sampled_from([1, 3, 9]), layout=st.sampled_from(["per_layer", "uniform"]),
    attention=st.sampled_from(["auto", "none", "kv_groups", "query_heads"]),
)  # fmt: skip
def test_deviation_by_rounding_is_not_refused(
    ratio: float, share: float, round_to: int, depth: int, channels: int, groups: int,
    layout: Any, attention: Any,
) -> None:  # fmt: skip
    shape = structures(depth, kv_groups=groups, channels=channels)
    pruning = PruningConfig(
        ratio=ratio, ratio_of="blocks", round_to=round_to, layout=layout, attention=attention
    )
    try:
        target = PruningTarget(shape, pruning)
        plan = allocate(scores(shape), target, {}, sensitivity(shape), share)
    except UserError as error:
        assert "can't be reached" in str(error)  # there is not so much to remove
        return
    unit = (64 if layout == "uniform" else 64 / depth) / channels
    assert plan.ratio.achieved_blocks == pytest.approx(ratio, abs=unit)
