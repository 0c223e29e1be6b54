"""The cost of a model, compared with a count by hand and with torch's own count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adapruner.config import EvaluationConfig
from adapruner.efficiency.cost import decode_flops, kv_bytes, measure_cost, prefill_flops
from adapruner.efficiency.results import Cost
from adapruner.models.storage.checkpoint import inspect, size_on_disk
from adapruner.models.structures import describe_model
from adapruner.pruning.surgery import apply
from tests.adapruner.conftest import Workplace
from tests.adapruner.pruning.plans import plan_for, plan_with_subsets
from tests.models import BASE, KINDS, small_model


def counted(model: Any, tokens: torch.Tensor, cache: Any = None) -> tuple[int, Any]:
    """FLOPs of matrix products by torch's count, without the rotary embedding's angles."""
    model.set_attn_implementation("eager")
    for module in model.modules():
        if hasattr(module, "config"):  # torch counts no grouped products
            module.config._experts_implementation = "eager"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    by_module = counter.get_flop_counts()
    angles = sum(sum(v.values()) for k, v in by_module.items() if k.endswith("rotary_emb"))
    return counter.get_total_flops() - angles, output.past_key_values


@pytest.mark.parametrize("is_cut", [False, True], ids=["dense", "per-layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_flops_and_cache_are_those_that_torch_counts(kind: str, is_cut: bool) -> None:
    model = small_model(kind, **({"sliding_window": 64} if "sliding_window" in KINDS[kind] else {}))
    if is_cut:
        apply(model, plan_for(model, "ragged"))
    structures = describe_model(model)
    vocabulary = BASE["vocab_size"]
    tokens = torch.arange(12)[None]
    prefilled, cache = counted(model, tokens)
    assert prefill_flops(structures, vocabulary, 12) == prefilled
    decoded, cache = counted(model, tokens[:, :1], cache)
    assert decode_flops(structures, vocabulary, 13) == decoded
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kv_bytes(structures, 13, 4) == cached


@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3"])
def test_flops_of_residual_subsets_are_those_that_torch_counts(kind: str) -> None:
    model = small_model(kind, sliding_window=64)
    apply(model, plan_with_subsets(model))
    prefilled, _ = counted(model, torch.arange(12)[None])
    assert prefill_flops(describe_model(model), BASE["vocab_size"], 12) == prefilled


def test_flops_and_cache_are_those_of_a_count_by_hand() -> None:
    structures = describe_model(small_model("llama"))
    # 4 layers; hidden 32, MLP 48, 4 query heads and 2 KV groups of size 8, vocabulary 96.
    weights = 4 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    assert decode_flops(structures, 96, 10) == 2 * weights + 4 * 4 * 32 * 10 + 2 * 32 * 96
    assert kv_bytes(structures, 10, 2) == 4 * 2 * 16 * 10 * 2


def test_a_checkpoints_cost_is_that_of_its_shape_and_files(
    workplace: Workplace, tmp_path: Path
) -> None:
    settings = EvaluationConfig(prompt_tokens=(8, 4), new_tokens=2)
    checkpoint = workplace.checkpoint
    cost = measure_cost(checkpoint, checkpoint, workplace.model, settings)
    structures, vocabulary = inspect(checkpoint), BASE["vocab_size"]
    assert cost.dense.params == structures.total_params
    assert cost.dense.weight_bytes == size_on_disk(checkpoint)
    flops = cost.dense.flops_per_token
    assert flops.prefill == {str(n): prefill_flops(structures, vocabulary, n) / n for n in (8, 4)}
    assert flops.decode == {str(n): decode_flops(structures, vocabulary, n) for n in (8, 4)}
    assert cost.dense.kv_bytes["8"] == 8 * cost.dense.kv_bytes_per_token
    assert cost.dense.memory and cost.pruned.memory
    assert cost.protocol.memory_tokens == 8
    cost.write(tmp_path)
    assert Cost.read(tmp_path) == cost


def test_the_cache_has_the_configured_data_type(workplace: Workplace) -> None:
    settings = EvaluationConfig(prompt_tokens=8, peak_memory=False)
    half = workplace.model.model_copy(update={"dtype": "bfloat16"})
    costs = [
        measure_cost(workplace.checkpoint, workplace.checkpoint, model, settings).dense
        for model in (workplace.model, half)
    ]
    assert costs[0].kv_bytes_per_token == 2 * costs[1].kv_bytes_per_token


def test_without_speed_only_the_shape_is_measured(workplace: Workplace) -> None:
    off = EvaluationConfig(speed=False)
    cost = measure_cost(workplace.checkpoint, workplace.checkpoint, workplace.model, off)
    assert cost.pruned.memory is None and cost.pruned.params > 0
