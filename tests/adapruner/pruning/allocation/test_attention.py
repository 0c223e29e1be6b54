"""The heads and KV groups that stay."""

from __future__ import annotations

from typing import Any

import pytest

from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.models.structures import describe_model
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.plan import kept_widths
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import scores, structures
from tests.models import KINDS, small_model


@pytest.mark.parametrize("attention", ["kv_groups", "query_heads"])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_keeps_equal_groups(kind: str, attention: Any) -> None:
    shape = describe_model(small_model(kind, moe_intermediate_size=128))
    pruning = PruningConfig(
        ratio=0.3, ratio_of="blocks", attention=attention, round_to=8 if "moe" in kind else 1,
        protect_first=1, protect_last=0,
    )  # fmt: skip
    if shape.family.couples_heads:
        with pytest.raises(UserError, match=f"attention {attention}: Olmo.* use none or auto"):
            allocate(scores(shape), PruningTarget(shape, pruning), {})
        return
    plan = allocate(scores(shape), PruningTarget(shape, pruning), {})
    for dense, layer in zip(shape.layers, plan.layers, strict=True):
        kept_widths(dense, layer)
    assert plan.ratio.achieved_blocks == pytest.approx(0.3, abs=0.02)


def test_uniform_layout_keeps_a_head_count_that_a_stock_config_accepts() -> None:
    shape = structures(query_heads=9, kv_groups=9)
    pruning = PruningConfig(ratio=0.3, layout="uniform", attention="kv_groups")
    plan = allocate(scores(shape), PruningTarget(shape, pruning), {})
    assert all(576 % len(layer.heads()) == 0 for layer in plan.layers)
