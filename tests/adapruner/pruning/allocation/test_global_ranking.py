"""Comparable scores are ranked across layers."""

from __future__ import annotations

from adapruner.config import PruningConfig
from adapruner.models.structures import describe_model
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import ranked_across_layers
from tests.models import small_model


def test_comparable_scores_remove_the_lowest_channels_of_all_prunable_layers() -> None:
    shape = describe_model(small_model("llama"))
    pruning = PruningConfig(
        ratio=0.15, ratio_of="blocks", protect_first=1, protect_last=1, round_to=1
    )
    ranked = ranked_across_layers([0, 0.2, 0, 0])
    plan = allocate(ranked, PruningTarget(shape, pruning), {})
    kept = [set(layer.channels()) for layer in plan.layers]
    order = sorted((float(s), i, c) for i in (1, 2) for c, s in enumerate(ranked.mlp[i]))
    removed = {(i, c) for i in (1, 2) for c in set(range(48)) - kept[i]}
    assert removed == {(i, c) for _, i, c in order[: len(removed)]}
    assert len(kept[1]) > len(kept[2]), "the layer with higher scores stays wider"
    assert len(kept[0]) == len(kept[3]) == 48

    uniform = pruning.model_copy(update={"layout": "uniform"})
    plan = allocate(ranked, PruningTarget(shape, uniform), {})
    assert len({len(layer.channels()) for layer in plan.layers}) == 1


def test_layer_that_would_lose_all_its_channels_keeps_some() -> None:
    pruning = PruningConfig(
        ratio=0.2, ratio_of="blocks", protect_first=1, protect_last=1, round_to=4
    )
    target = PruningTarget(describe_model(small_model("llama")), pruning)
    plan = allocate(ranked_across_layers([0, -2, 2, 0]), target, {})
    widths = [len(layer.channels()) for layer in plan.layers]
    assert widths[0] == widths[3] == 48
    assert 4 <= widths[1] < widths[2]
