"""The ratio is met, the best structures stay, the layout holds, and the rest is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.importance.scores import Scores
from adapruner.models.families import FAMILIES
from adapruner.models.structures import LayerWidths, Structures, describe_model
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.allocation.width_profile import REMOVED
from adapruner.pruning.allocation.widths import mlp_widths
from adapruner.pruning.plan import kept_widths
from adapruner.pruning.target import PruningTarget
from tests.models import KINDS, small_model


def structures(
    depth: int = 30, query_heads: int = 9, kv_groups: int = 3, channels: int = 1536
) -> Structures:
    """SmolLM2-135M's, or a model like it of another depth, with other heads or channels."""
    hidden, head_dim = 576, 64
    head, group = 2 * hidden * head_dim, 2 * hidden * head_dim
    block = depth * (3 * hidden * channels + query_heads * head + kv_groups * group + 2 * hidden)
    return Structures(
        family=FAMILIES["llama"], head_dim=head_dim, hidden_size=hidden,
        layers=(LayerWidths(channels, query_heads, kv_groups),) * depth,
        channel_params=3 * hidden, head_params=head, group_params=group,
        total_params=block + 49152 * hidden + hidden, block_params=block,
    )  # fmt: skip


def scores(shape: Structures, seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> torch.Tensor:
        return torch.rand(count, generator=generator)

    return Scores(
        mlp=[drawn(w.mlp_channels) for w in shape.layers],
        heads=[drawn(w.query_heads) for w in shape.layers],
        groups=[drawn(w.kv_groups) for w in shape.layers],
    )


def sensitivity(shape: Structures, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.rand(len(shape.layers), len(REMOVED), generator=generator)
    return steps.double().cumsum(1)


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


@pytest.mark.parametrize("attention", ["kv_groups", "query_heads"])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_keeps_equal_groups(kind: str, attention: Any) -> None:
    shape = describe_model(small_model(kind))
    pruning = PruningConfig(
        ratio=0.3, ratio_of="blocks", attention=attention, round_to=1,
        protect_first=1, protect_last=0,
    )  # fmt: skip
    plan = allocate(scores(shape), PruningTarget(shape, pruning), {})
    for dense, layer in zip(shape.layers, plan.layers, strict=True):
        kept_widths(dense, layer)
    assert plan.ratio.achieved_blocks == pytest.approx(0.3, abs=0.02)


def test_auto_prunes_attention_of_multi_head_models_alone() -> None:
    pruning = PruningConfig()
    multi_head = structures(query_heads=9, kv_groups=9)
    assert PruningTarget(structures(), pruning).attention == "none"
    assert PruningTarget(multi_head, pruning).attention == "kv_groups"


def test_uniform_layout_keeps_a_head_count_that_a_stock_config_accepts() -> None:
    shape = structures(query_heads=9, kv_groups=9)
    pruning = PruningConfig(ratio=0.3, layout="uniform", attention="kv_groups")
    plan = allocate(scores(shape), PruningTarget(shape, pruning), {})
    assert all(576 % len(layer.heads()) == 0 for layer in plan.layers)


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


def unequal(first: LayerWidths) -> Structures:
    """A source that was pruned before: its first layer has other widths than the others."""
    shape = structures(depth=10, kv_groups=9)
    return replace(shape, layers=(first, *shape.layers[1:]))


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


@settings(max_examples=60, deadline=None)
@given(
    ratio=st.floats(0.01, 0.45), share=st.floats(0, 1), seed=st.integers(0, 9),
    round_to=st.sampled_from([1, 8, 32, 64]), depth=st.integers(7, 12),
    channels=st.sampled_from([1536, 1000, 1531]),
)  # fmt: skip
@example(ratio=0.002, share=0.0, seed=0, round_to=64, depth=10, channels=1000)
def test_any_setting_meets_its_ratio_or_is_refused(
    ratio: float, share: float, seed: int, round_to: int, depth: int, channels: int
) -> None:
    shape = structures(depth, channels=channels)
    pruning = PruningConfig(ratio=ratio, ratio_of="blocks", round_to=round_to)
    heads = [list(range(w.query_heads)) for w in shape.layers]
    try:
        target = PruningTarget(shape, pruning)
        widths = mlp_widths(scores(shape, seed), target, heads, sensitivity(shape, seed), share)
    except UserError:
        return
    assert all((0 < w < channels and w % round_to == 0) or w == channels for w in widths)
    removed = sum(channels - w for w in widths) * shape.channel_params
    assert abs(removed - ratio * shape.block_params) <= round_to * shape.channel_params * 0.51


def ranked_across_layers(first: list[float]) -> Scores:
    """Comparable scores of four layers of 48 channels; `first` are the layers' offsets."""
    generator = torch.Generator().manual_seed(3)
    mlp = [torch.rand(48, generator=generator) + offset for offset in first]
    heads, groups = [torch.ones(4)] * 4, [torch.ones(2)] * 4
    return Scores(mlp=mlp, heads=heads, groups=groups, comparable=True)


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
