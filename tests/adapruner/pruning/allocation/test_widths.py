"""The widths of the MLPs."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.pruning.allocation.widths import mlp_widths
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import scores, sensitivity, structures


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
    try:
        target = PruningTarget(shape, pruning)
        drawn = scores(shape, seed), target, shape.layers, sensitivity(shape, seed)
        widths = mlp_widths(*drawn, share)
    except UserError:
        return
    assert all((0 < w < channels and w % round_to == 0) or w == channels for w in widths)
    removed = sum(channels - w for w in widths) * shape.channel_params
    assert abs(removed - ratio * shape.block_params) <= round_to * shape.channel_params * 0.51
