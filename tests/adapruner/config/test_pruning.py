"""The runtime that serves the result sets multiples and structures."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from adapruner.config import PruningConfig, ReconstructionConfig


@pytest.mark.parametrize(
    ("target", "multiple"),
    [("transformers", 8), ("vllm", 64), ("llama.cpp", 32), ("portable", 256)],
)
def test_a_target_sets_the_multiple_of_widths(target: Any, multiple: int) -> None:
    assert PruningConfig(target=target).round_to == multiple
    doubled = PruningConfig(target=target, round_to=2 * multiple)
    assert doubled.round_to == 2 * multiple
    assert PruningConfig.model_validate(doubled.model_dump()) == doubled
    assert PruningConfig().round_to == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": "portable", "attention": "kv_groups"}, "different head counts"),
        ({"target": "portable", "attention": "query_heads"}, "different head counts"),
        ({"target": "portable", "round_to": 128}, "multiple of 256, got 128"),
        ({"target": "onnx"}, "Input should be"),
    ],
)
def test_what_the_target_can_not_load_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PruningConfig(**values)


def test_heads_may_differ_where_the_target_takes_them_or_the_layout_is_uniform() -> None:
    PruningConfig(target="llama.cpp", attention="kv_groups")
    PruningConfig(target="vllm", attention="kv_groups")
    PruningConfig(target="portable", attention="kv_groups", layout="uniform")


def test_whole_experts_do_not_count_for_latency() -> None:
    with pytest.raises(ValueError, match="use experts: channels"):
        PruningConfig(ratio_of="latency", experts="whole")


def test_a_latency_table_depends_on_what_a_time_depends_on_alone() -> None:
    timed = PruningConfig(ratio_of="latency", context=64, ratio=0.3, protect_first=0)
    assert timed.latency_settings == PruningConfig(ratio_of="latency", context=64)
    assert PruningConfig(ratio_of="memory").latency_settings is None


def test_activations_of_the_dense_model_are_for_the_closed_form_alone() -> None:
    with pytest.raises(ValidationError, match=r"activations is dense.*got epochs 2"):
        ReconstructionConfig(activations="dense")
    assert ReconstructionConfig(activations="dense", epochs=0).is_by_matrices
    assert not ReconstructionConfig(activations="dense", method="none").is_by_matrices
