"""What a model costs, against a count by hand and torch's own; memory of a real process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adapruner.efficiency import cost
from adapruner.config import EvaluationConfig
from adapruner.pruning.plan import PruningPlan, make_plan
from adapruner.efficiency.speed import measure, spread
from adapruner.models.structures import describe_model
from adapruner.pruning.surgery import apply
from tests.adapruner.conftest import Workplace
from tests.models import BASE, KINDS, small_model


def cut(model: Any) -> Any:
    """The model with layers of different widths, as a per-layer checkpoint would load."""
    structures = describe_model(model)
    first = structures.layers[0]
    group = tuple(range(first.heads_per_group)) if first.kv_groups > 1 else range(first.query_heads)
    keep = [
        (range(first.mlp_channels - 8 * i), group if i == 1 else range(first.query_heads))
        for i in range(len(structures.layers))
    ]
    plan: PruningPlan = make_plan(
        structures, keep, layout="per_layer", protected=(), requested=0.1, of="all", provenance={}
    )
    apply(model, plan)
    return model


def counted(model: Any, tokens: torch.Tensor, cache: Any = None) -> tuple[int, Any]:
    """Matrix products' FLOPs by torch, but for the rotary embedding's table of angles."""
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    by_module = counter.get_flop_counts()
    angles = sum(sum(v.values()) for k, v in by_module.items() if k.endswith("rotary_emb"))
    return counter.get_total_flops() - angles, output.past_key_values


@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "per-layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_those_that_torch_counts(kind: str, is_cut: bool) -> None:
    model = small_model(kind)
    model = cut(model) if is_cut else model
    structures = describe_model(model)
    vocabulary = BASE["vocab_size"]
    tokens = torch.arange(12)[None]
    prefilled, cache = counted(model, tokens)
    assert cost.prefill_flops(structures, vocabulary, 12) == prefilled
    decoded, cache = counted(model, tokens[:, :1], cache)
    assert cost.decode_flops(structures, vocabulary, 13) == decoded
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cost.kv_bytes(structures, 13, 4) == held


def test_flops_are_those_of_a_count_by_hand() -> None:
    structures = describe_model(small_model("llama"))
    # 4 layers; hidden 32, MLP 48, 4 query heads and 2 KV groups of size 8, vocabulary 96.
    weights = 4 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    assert cost.decode_flops(structures, 96, 10) == 2 * weights + 4 * 4 * 32 * 10 + 2 * 32 * 96
    assert cost.kv_bytes(structures, 10, 2) == 4 * 2 * 16 * 10 * 2


def test_a_checkpoint_s_cost_is_measured_and_told(workplace: Workplace, tmp_path: Path) -> None:
    settings = EvaluationConfig(prompt_tokens=(8, 4), new_tokens=2)
    cost.measure(workplace.checkpoint, workplace.checkpoint, workplace.model, settings, tmp_path)
    found = json.loads((tmp_path / "cost.json").read_text())
    dense = found["dense"]
    assert dense["weight_bytes"] > 4 * dense["params"]
    assert set(dense["flops_per_token"]["prefill"]) == {"4", "8"}
    assert dense["kv_bytes"]["8"] == 8 * dense["kv_bytes_per_token"]
    memory = dense["memory"]
    assert memory["peak_bytes"] > memory["libraries_bytes"] + dense["weight_bytes"]
    assert found["protocol"]["memory_tokens"] == 8


def test_memory_that_can_t_be_measured_is_told_and_costs_nothing_else(
    workplace: Workplace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = EvaluationConfig(prompt_tokens=8, new_tokens=2)
    absent = [workplace.checkpoint, tmp_path / "absent"]
    assert cost._peaks(absent, workplace.model, settings) == [None, None]
    assert "peak memory could not be measured" in capfd.readouterr().err
    off = settings.model_copy(update={"peak_memory": False})
    assert cost._peaks(absent, workplace.model, off) == [None, None]


def test_speed_is_measured_in_turn_at_every_setting(workplace: Workplace, tmp_path: Path) -> None:
    settings = EvaluationConfig(prompt_tokens=(4, 8), batch_sizes=(1, 2), new_tokens=4, repeats=3)
    measure(workplace.checkpoint, workplace.checkpoint, workplace.model, settings, tmp_path)
    speed = json.loads((tmp_path / "speed.json").read_text())
    assert set(speed["speedup"]) == {f"batch_{b}_prompt_{t}" for b in (1, 2) for t in (4, 8)}
    for setting, gained in speed["speedup"].items():
        figures = speed["dense"][setting]["prefill_tokens_per_s"]
        ordered = [figures[key] for key in ("min", "q1", "median", "q3", "max")]
        assert ordered == sorted(ordered) and ordered[0] > 0
        both = (speed[m][setting]["decode_tokens_per_s"]["median"] for m in ("pruned", "dense"))
        pruned, dense = both
        assert gained["decode"] == pytest.approx(pruned / dense)


def test_where_speed_is_switched_off_only_the_shape_is_told(
    workplace: Workplace, tmp_path: Path
) -> None:
    off = EvaluationConfig(speed=False)
    measure(tmp_path / "none", tmp_path / "none", workplace.model, off, tmp_path)
    assert json.loads((tmp_path / "speed.json").read_text()) == {}
    cost.measure(workplace.checkpoint, workplace.checkpoint, workplace.model, off, tmp_path)
    found = json.loads((tmp_path / "cost.json").read_text())["pruned"]
    assert found["memory"] is None and found["params"] > 0


def test_spread_is_median_quartiles_and_range() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == {"median": 3, "q1": 2, "q3": 4, "min": 1, "max": 5}
    assert set(spread([2.0]).values()) == {2.0}
