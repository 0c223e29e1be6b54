"""Memory against a count by hand and bytes of real models; latency on a table made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from adapruner.config import PruningConfig
from adapruner.efficiency.latency_table import Curve, Hardware, LatencyTable
from adapruner.errors import UserError
from adapruner.models.structures import LayerWidths, describe_model
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.costs.costs import CostInputs, context_of, read_inputs
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import apply
from adapruner.pruning.target import PruningTarget
from tests.adapruner.conftest import Workplace
from tests.adapruner.pruning.allocation.shapes import scores, sensitivity, structures
from tests.models import BASE, small_model, tokens

CPU = Hardware(
    processor="x", machine="x86_64", cores=2, threads=1, gpus=(), dtype="float32", torch="2"
)
KINKED = Curve(shares=(0.01, 0.5, 0.75, 1.0), ns=(1e6, 2e6, 6e6, 7e6))


def table(**curves: Curve) -> LatencyTable:
    return LatencyTable(
        phase="prefill", tokens=64, hardware=CPU, repeats=7, total_ns=1e7, curves=curves
    )


def memory(ratio: float, **settings: Any) -> PruningConfig:
    return PruningConfig(
        ratio=ratio, ratio_of="memory", protect_first=0, protect_last=0, round_to=1, **settings
    )


def bytes_held(model: Any, length: int) -> int:
    """Bytes of the weights, tied ones once, and of the cache after a prompt."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(tokens(1, length).long(), past_key_values=cache, use_cache=True)
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    return sum(weight.nbytes for weight in model.parameters()) + cached


def test_memory_is_counted_by_hand() -> None:
    shape = structures()
    inputs = CostInputs(dtype=torch.bfloat16, max_context=8192)
    costs = PruningTarget(shape, memory(0.2, context=1000), inputs).costs
    cache = 30 * 2 * 3 * 64 * 1000 * 2
    assert costs.base == 2 * shape.total_params + cache
    whole, fewer = shape.layers[0], LayerWidths(1535, 9, 3)
    assert costs.of_layer(0, whole) - costs.of_layer(0, fewer) == 2 * 3 * 576
    group = 2 * (4 * 576 * 64 * 2)  # one of three groups, with three of nine heads
    removed = costs.of_layer(0, whole) - costs.of_layer(0, LayerWidths(1536, 6, 2))
    assert removed == group + 2 * 64 * 1000 * 2


@pytest.mark.parametrize("attention", ["none", "kv_groups", "query_heads"])
@pytest.mark.parametrize("kind", ["llama", "llama-mha", "qwen3", "qwen3-moe"])
def test_planned_memory_is_that_of_the_cut_model(kind: str, attention: Any) -> None:
    model, length = small_model(kind), 24
    shape = describe_model(model)
    pruning = memory(0.12, context=length, attention=attention)
    pruning = pruning.model_copy(update={"round_to": 8 if shape.has_experts else 1})
    inputs = CostInputs(dtype=torch.float32, max_context=64)
    plan = allocate(scores(shape), PruningTarget(shape, pruning, inputs), {})
    cost = plan.ratio.cost
    assert cost is not None and cost.dense == bytes_held(model, length)
    apply(model, plan)
    assert cost.pruned == bytes_held(model, length)
    assert plan.ratio.achieved == pytest.approx(0.12, abs=0.03)


def test_channels_alone_do_not_reach_the_cache() -> None:
    shape = structures(kv_groups=9)
    inputs = CostInputs(dtype=torch.bfloat16)
    context = 100_000
    refused = PruningTarget(shape, memory(0.3, context=context, attention="none"), inputs)
    with pytest.raises(UserError, match=r"0\.3 of memory can't be reached.*at most 0\.0") as e:
        allocate(scores(shape), refused, {})
    assert "pruning.attention: kv_groups" in str(e.value) and "\n" not in str(e.value)
    reached = PruningTarget(shape, memory(0.3, context=context, attention="kv_groups"), inputs)
    assert allocate(scores(shape), reached, {}).ratio.achieved == pytest.approx(0.3, abs=0.05)


def test_the_context_is_bounded_by_the_models() -> None:
    assert context_of(memory(0.2), None) == context_of(memory(0.2), 8192) == 4096
    assert context_of(memory(0.2), 64) == 64
    assert context_of(PruningConfig(ratio_of="latency"), 2048) == 256
    with pytest.raises(UserError, match="the model's context is 64 tokens"):
        context_of(memory(0.2, context=65), 64)


def test_inputs_are_read_from_the_checkpoint(workplace: Workplace) -> None:
    inputs = read_inputs(workplace.checkpoint)
    limit = BASE["max_position_embeddings"]
    assert (inputs.dtype, inputs.max_context, inputs.latency) == (torch.float32, limit, None)


@pytest.mark.parametrize("of", ["memory", "latency"])
def test_a_target_without_its_inputs_is_refused(of: Any) -> None:
    target = PruningTarget(structures(), PruningConfig(ratio_of=of))
    with pytest.raises(UserError, match=f"ratio_of {of} needs"):
        allocate(scores(structures()), target, {})


@pytest.mark.parametrize("comparable", [False, True])
@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.45, 0.55])
def test_a_kinked_curve_is_met(ratio: float, layout: Any, comparable: bool) -> None:
    shape = structures(depth=10)
    pruning = PruningConfig(
        ratio=ratio, ratio_of="latency", layout=layout, protect_first=0, protect_last=0
    )
    target = PruningTarget(shape, pruning, CostInputs(latency=table(mlp=KINKED)))
    drawn = replace(scores(shape), comparable=comparable)
    plan = allocate(drawn, target, {}, sensitivity(shape), 0.6)
    step = 16e6 * 8 / 1536 / 1e7  # of one layer, or of all in the uniform layout, at its steepest
    assert plan.ratio.achieved == pytest.approx(
        ratio, abs=step if layout == "uniform" else step / 10
    )
    cost = plan.ratio.cost
    assert cost is not None
    widths = [len(layer.channels()) for layer in plan.layers]
    by_hand = 3e6 + sum(KINKED.at(width / 1536) / 10 for width in widths)
    assert cost.pruned == pytest.approx(by_hand, abs=1)


def test_attention_counts_where_it_is_pruned() -> None:
    shape = structures(depth=10, kv_groups=9)
    attention = Curve(shares=(1 / 9, 1.0), ns=(1e6, 2e6))
    pruning = PruningConfig(
        ratio=0.3, ratio_of="latency", attention="kv_groups", protect_first=0, protect_last=0
    )
    inputs = CostInputs(latency=table(mlp=KINKED, attention=attention))
    plan = allocate(scores(shape), PruningTarget(shape, pruning, inputs), {})
    assert plan.ratio.achieved == pytest.approx(0.3, abs=0.005)
    assert all(len(layer.heads()) < 9 for layer in plan.layers)


def test_too_much_time_is_refused_with_what_can_be_saved() -> None:
    shape = structures(depth=10)
    target = PruningTarget(
        shape, PruningConfig(ratio=0.7, ratio_of="latency"), CostInputs(latency=table(mlp=KINKED))
    )
    with pytest.raises(UserError, match=r"0\.7 of latency can't be reached.*at most 0\.\d+ can"):
        allocate(scores(shape), target, {})


def test_a_plan_keeps_its_cost_and_others_have_none(tmp_path: Path) -> None:
    shape = structures(depth=10)
    inputs = CostInputs(latency=table(mlp=KINKED))
    pruning = PruningConfig(ratio=0.1, ratio_of="latency")
    for settings, has_cost in ((pruning, True), (PruningConfig(ratio=0.1), False)):
        plan = allocate(scores(shape), PruningTarget(shape, settings, inputs), {})
        plan.write(tmp_path)
        assert PruningPlan.read(tmp_path) == plan
        assert ('"cost"' in (tmp_path / PruningPlan.FILE).read_text()) == has_cost
