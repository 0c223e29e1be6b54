"""The ratio is met, and the best structures stay."""

from __future__ import annotations

from typing import Any

import pytest

from adapruner.config import PruningConfig
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import scores, sensitivity, structures


@pytest.mark.parametrize("ratio_of", ["all", "blocks"])
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.35])
def test_per_layer_meets_the_ratio(ratio: float, share: float, ratio_of: Any) -> None:
    shape = structures()
    pruning = PruningConfig(ratio=ratio, ratio_of=ratio_of)
    target = PruningTarget(shape, pruning)
    plan = allocate(scores(shape), target, {}, sensitivity(shape), share)
    achieved = plan.ratio.achieved_all if ratio_of == "all" else plan.ratio.achieved_blocks
    assert achieved == pytest.approx(ratio, abs=1e-4)
    widths = [len(layer.channels()) for layer in plan.layers]
    assert all(width % 8 == 0 and width > 0 for width in widths)
    assert widths[:4] == [1536] * 4
    assert widths[-2:] == [1536] * 2
    assert (max(widths[4:-2]) - min(widths[4:-2]) > 8) == (share > 0)
    removed = sum(1536 - w for w in widths) * shape.channel_params
    assert plan.params.dense - plan.params.pruned == removed


def test_uniform_layout_has_one_width_for_all_layers() -> None:
    shape = structures()
    plan = allocate(
        scores(shape),
        PruningTarget(shape, PruningConfig(layout="uniform")),
        {},
        sensitivity(shape),
        0.5,
    )
    assert {len(layer.channels()) for layer in plan.layers} == {1016}
    assert plan.ratio.achieved_all == pytest.approx(0.2, abs=0.003)
    assert plan.protected == ()


def test_channels_with_the_highest_scores_stay() -> None:
    shape = structures()
    drawn = scores(shape)
    plan = allocate(drawn, PruningTarget(shape, PruningConfig()), {})
    kept = plan.layers[10].channels()
    removed = sorted(set(range(1536)) - set(kept))
    assert drawn.mlp[10][kept].min() >= drawn.mlp[10][removed].max()
