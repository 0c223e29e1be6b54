"""The pruning target."""

from __future__ import annotations

from typing import Any

from adapruner.config import PruningConfig
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import structures


def test_auto_prunes_attention_of_multi_head_models_alone() -> None:
    pruning = PruningConfig()
    multi_head = structures(query_heads=9, kv_groups=9)
    assert PruningTarget(structures(), pruning).attention == "none"
    assert PruningTarget(multi_head, pruning).attention == "kv_groups"


def test_auto_keeps_all_heads_where_the_runtime_takes_equal_counts_alone() -> None:
    multi_head = structures(query_heads=9, kv_groups=9)

    def attention(**settings: Any) -> str:
        return PruningTarget(multi_head, PruningConfig(**settings)).attention

    assert attention(target="portable") == "none"
    assert attention(target="portable", layout="uniform") == "kv_groups"
    assert attention(target="vllm") == attention(target="llama.cpp") == "kv_groups"
