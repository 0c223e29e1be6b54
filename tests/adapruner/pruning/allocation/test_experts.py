"""Which experts and which of their channels a plan keeps."""

from __future__ import annotations

from typing import Any

import pytest

from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.models.structures import LayerWidths, Structures, describe_model
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.plan import PruningPlan, kept_widths
from adapruner.pruning.surgery import apply, check_fits
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.allocation.shapes import scores
from tests.adapruner.pruning.plans import plan_keeping
from tests.models import small_model

KINDS = ("qwen3-moe", "qwen3-moe-mixed")


def model_of(kind: str) -> Any:
    return small_model(kind, num_experts=8, moe_intermediate_size=256, intermediate_size=512)


def planned(shape: Structures, experts: str, layout: str, ratio: float) -> PruningPlan:
    pruning = PruningConfig(
        ratio=ratio, ratio_of="blocks", layout=layout, experts=experts,
        protect_first=1, protect_last=0,
    )  # fmt: skip
    return allocate(scores(shape), PruningTarget(shape, pruning), {})


def widths_of(shape: Structures, plan: PruningPlan) -> list[LayerWidths]:
    return [kept_widths(*layer) for layer in zip(shape.layers, plan.layers, strict=True)]


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.5])
@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize("experts", ["channels", "whole"])
@pytest.mark.parametrize("kind", KINDS)
def test_ratio_is_met_in_every_layout(kind: str, experts: str, layout: str, ratio: float) -> None:
    model = model_of(kind)
    shape = describe_model(model)
    plan = planned(shape, experts, layout, ratio)
    assert plan.ratio.achieved_blocks == pytest.approx(ratio, abs=0.02)
    kept = widths_of(shape, plan)
    fewer = [a.experts < b.experts for a, b in zip(kept, shape.layers, strict=True) if b.experts]
    assert any(fewer) == (experts == "whole")
    assert all(widths.mlp_width % 8 == 0 for widths in kept)
    apply(model, plan)
    assert model.num_parameters() == plan.params.pruned
    assert describe_model(model).layers == tuple(kept)
    is_stock = model.config.architectures == ["Qwen3MoeForCausalLM"]
    assert is_stock == (layout == "uniform")


def test_the_experts_with_the_lowest_sums_are_removed_and_the_lowest_channels_of_others() -> None:
    shape = describe_model(model_of("qwen3-moe"))
    drawn = scores(shape)
    plan = planned(shape, "whole", "uniform", 0.4)
    for values, layer in zip(drawn.mlp, plan.layers, strict=True):
        sums = values.view(8, -1).sum(1)
        experts = sorted({channel // 256 for channel in layer.channels()})
        assert experts == sorted(sums.topk(len(experts)).indices.tolist())
        width = len(layer.channels()) // len(experts)
        for expert in experts:
            own = [c - expert * 256 for c in layer.channels() if c // 256 == expert]
            best = values[expert * 256 : (expert + 1) * 256].topk(width).indices.tolist()
            assert own == sorted(best)


def test_a_layer_keeps_the_experts_that_one_token_needs() -> None:
    shape = describe_model(model_of("qwen3-moe"))
    plan = planned(shape, "whole", "uniform", 0.85)
    assert [widths.experts for widths in widths_of(shape, plan)] == [2] * 4


def test_plan_with_too_few_experts_or_unequal_ones_is_refused() -> None:
    shape = describe_model(small_model("qwen3-moe"))
    heads = range(4)
    few = plan_keeping(shape, [(range(48), heads)] * 4)
    with pytest.raises(UserError, match=r"layer 0 keeps 1 .* each token needs 2; keep at least 2"):
        check_fits(few, shape)
    with pytest.raises(UserError, match="number of channels in every expert"):
        plan_keeping(shape, [(range(49), heads)] * 4)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("llama", {"experts": "whole"}, "this LlamaForCausalLM has no experts; use channels"),
        ("qwen3-moe", {"round_to": 4}, "round_to 4: .* multiples of 8; use such a multiple"),
    ],
)
def test_settings_that_do_not_suit_the_model_are_refused(
    kind: str, fields: dict[str, Any], message: str
) -> None:
    target = PruningTarget(describe_model(small_model(kind)), PruningConfig(**fields))
    with pytest.raises(UserError, match=message):
        target.check_experts()
