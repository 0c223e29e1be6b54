"""Plans: the ratio is met, the best stay, the layout holds, and what can't be had is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapruner.pruning.allocation.allocate import allocate, attention_mode, mlp_widths
from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.models.families import FAMILIES
from adapruner.pruning.plan import format_ranges, kept_widths, parse_ranges, read_plan
from adapruner.pruning.width_profile import REMOVED, Profile
from adapruner.importance.scores import Scores
from adapruner.models.structures import LayerWidths, Structures, describe_model
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


def profile(shape: Structures, share: float, seed: int = 0) -> Profile:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.rand(len(shape.layers), len(REMOVED), generator=generator)
    return Profile(steps.cumsum(1), share)


@pytest.mark.parametrize("ratio_of", ["all", "blocks"])
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.35])
def test_per_layer_meets_the_ratio(ratio: float, share: float, ratio_of: Any) -> None:
    shape = structures()
    pruning = PruningConfig(ratio=ratio, ratio_of=ratio_of)
    plan = allocate(scores(shape), shape, pruning, {}, profile(shape, share))
    achieved = plan.ratio.achieved_all if ratio_of == "all" else plan.ratio.achieved_blocks
    assert achieved == pytest.approx(ratio, abs=1e-4)
    widths = [len(layer.channels()) for layer in plan.layers]
    assert all(width % 8 == 0 and width > 0 for width in widths)
    assert widths[:4] == [1536] * 4
    assert widths[-2:] == [1536] * 2
    assert (max(widths[4:-2]) - min(widths[4:-2]) > 8) == (share > 0)
    removed = sum(1536 - w for w in widths) * shape.channel_params
    assert plan.params.dense - plan.params.pruned == removed


def test_uniform_gives_every_layer_one_width() -> None:
    shape = structures()
    plan = allocate(scores(shape), shape, PruningConfig(layout="uniform"), {}, profile(shape, 0.5))
    assert {len(layer.channels()) for layer in plan.layers} == {1016}
    assert plan.ratio.achieved_all == pytest.approx(0.2, abs=0.003)
    assert plan.protected == ()


def test_the_best_channels_stay() -> None:
    shape = structures()
    given_scores = scores(shape)
    plan = allocate(given_scores, shape, PruningConfig(), {})
    kept = plan.layers[10].channels()
    gone = sorted(set(range(1536)) - set(kept))
    assert given_scores.mlp[10][kept].min() >= given_scores.mlp[10][gone].max()


@pytest.mark.parametrize("attention", ["kv_groups", "query_heads"])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_keeps_equal_groups(kind: str, attention: Any) -> None:
    shape = describe_model(small_model(kind))
    pruning = PruningConfig(
        ratio=0.3, ratio_of="blocks", attention=attention, round_to=1,
        protect_first=1, protect_last=0,
    )  # fmt: skip
    plan = allocate(scores(shape), shape, pruning, {})
    for dense, layer in zip(shape.layers, plan.layers, strict=True):
        kept_widths(dense, layer)
    assert plan.ratio.achieved_blocks == pytest.approx(0.3, abs=0.02)


def test_auto_prunes_attention_of_multi_head_models_alone() -> None:
    pruning = PruningConfig()
    assert attention_mode(structures(), pruning) == "none"
    assert attention_mode(structures(query_heads=9, kv_groups=9), pruning) == "kv_groups"


def test_uniform_keeps_a_head_count_that_a_stock_config_takes() -> None:
    shape = structures(query_heads=9, kv_groups=9)
    pruning = PruningConfig(ratio=0.3, layout="uniform", attention="kv_groups")
    plan = allocate(scores(shape), shape, pruning, {})
    assert all(576 % len(layer.heads()) == 0 for layer in plan.layers)


@pytest.mark.parametrize("changes", [{"ratio": 0.6}, {"ratio": 0.59, "layout": "uniform"}])
def test_an_unreachable_ratio_is_refused_with_what_can_be_reached(changes: Any) -> None:
    shape = structures()
    with pytest.raises(UserError, match=r"at most 0\.\d+ can be removed; lower pruning.ratio") as e:
        allocate(scores(shape), shape, PruningConfig(**changes), {})
    most = float(str(e.value).split("at most ")[1].split(" ")[0])
    reached = PruningConfig(**changes | {"ratio": most - 0.001})
    plan = allocate(scores(shape), shape, reached, {})
    assert plan.ratio.achieved_all == pytest.approx(most, abs=0.004)


@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
def test_a_ratio_that_rounds_to_nothing_is_refused_with_the_least_that_does_not(
    layout: Any,
) -> None:
    shape = structures()
    asked = {"ratio": 1e-4, "layout": layout, "round_to": 64}
    with pytest.raises(UserError, match=r"ratio 0.0001 of all rounds to nothing") as e:
        allocate(scores(shape), shape, PruningConfig(**asked), {})
    least = float(str(e.value).split("can be removed is ")[1].split(";")[0])
    plan = allocate(scores(shape), shape, PruningConfig(**asked | {"ratio": least}), {})
    assert plan.ratio.achieved_all == pytest.approx(least, rel=0.05)


def unequal(first: LayerWidths) -> Structures:
    """A source that was pruned before: its first layer has other widths than the others."""
    shape = structures(depth=10, kv_groups=9)
    return replace(shape, layers=(first, *shape.layers[1:]))


@pytest.mark.parametrize("attention", ["none", "kv_groups"])
def test_uniform_is_refused_for_layers_that_would_differ(attention: Any) -> None:
    shape = unequal(LayerWidths(1536, 3, 3))
    pruning = PruningConfig(layout="uniform", ratio_of="blocks", attention=attention)
    with pytest.raises(UserError, match=r"layout uniform can't be had: the model's layers differ"):
        allocate(scores(shape), shape, pruning, {})
    per_layer = pruning.model_copy(update={"layout": "per_layer"})
    assert allocate(scores(shape), shape, per_layer, {}).layout == "per_layer"


def test_uniform_is_refused_when_the_narrowest_layer_costs_more_than_was_asked() -> None:
    shape = unequal(LayerWidths(512, 9, 9))
    pruning = PruningConfig(ratio=0.1, layout="uniform", ratio_of="blocks", attention="none")
    with pytest.raises(UserError, match=r"ratio 0.1 of blocks can't be met in layout uniform") as e:
        allocate(scores(shape), shape, pruning, {})
    nearest = float(str(e.value).split("can be reached is ")[1].split(";")[0])
    assert nearest > 0.3
    plan = allocate(scores(shape), shape, pruning.model_copy(update={"ratio": nearest}), {})
    assert {len(layer.channels()) for layer in plan.layers} == {512}


@settings(max_examples=60, deadline=None)
@given(
    ratio=st.floats(0.05, 0.45), share=st.floats(0, 1), round_to=st.sampled_from([1, 8, 64]),
    depth=st.integers(7, 10), channels=st.sampled_from([1536, 1000]),
    groups=st.sampled_from([1, 3, 9]), layout=st.sampled_from(["per_layer", "uniform"]),
    attention=st.sampled_from(["auto", "none", "kv_groups", "query_heads"]),
)  # fmt: skip
def test_what_rounding_explains_is_not_refused(
    ratio: float, share: float, round_to: int, depth: int, channels: int, groups: int,
    layout: Any, attention: Any,
) -> None:  # fmt: skip
    shape = structures(depth, kv_groups=groups, channels=channels)
    pruning = PruningConfig(
        ratio=ratio, ratio_of="blocks", round_to=round_to, layout=layout, attention=attention
    )
    try:
        plan = allocate(scores(shape), shape, pruning, {}, profile(shape, share))
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
    given_scores = scores(shape, seed)
    heads = [list(range(w.query_heads)) for w in shape.layers]
    try:
        widths = mlp_widths(given_scores, shape, pruning, heads, profile(shape, share, seed))
    except UserError:
        return
    assert all((0 < w < channels and w % round_to == 0) or w == channels for w in widths)
    removed = sum(channels - w for w in widths) * shape.channel_params
    assert abs(removed - ratio * shape.block_params) <= round_to * shape.channel_params * 0.51


@given(st.sets(st.integers(0, 300), min_size=1))
def test_ranges_spell_indices(indices: set[int]) -> None:
    assert parse_ranges(format_ranges(sorted(indices))) == sorted(indices)


@pytest.mark.parametrize("text", ["", "1-", "3-1", "4,2", "a", "1-2-3", "2,2"])
def test_ranges_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_ranges(text)


def test_a_plan_survives_its_file_and_an_edit_is_checked(tmp_path: Any) -> None:
    shape = structures()
    plan = allocate(scores(shape), shape, PruningConfig(), {"seed": 0})
    file = tmp_path / "plan.json"
    plan.write(file)
    assert read_plan(file) == plan
    file.write_text(file.read_text().replace('"layout"', '"lay-out"'))
    with pytest.raises(UserError, match="is not a pruning plan"):
        read_plan(file)
