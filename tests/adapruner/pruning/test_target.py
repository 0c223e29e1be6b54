"""The pruning target."""

from __future__ import annotations

from adapruner.config import PruningConfig
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import structures


def test_auto_prunes_attention_of_multi_head_models_alone() -> None:
    pruning = PruningConfig()
    multi_head = structures(query_heads=9, kv_groups=9)
    assert PruningTarget(structures(), pruning).attention == "none"
    assert PruningTarget(multi_head, pruning).attention == "kv_groups"
