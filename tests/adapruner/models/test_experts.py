"""The experts of a layer as one MLP."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adapruner.models.experts import Expert, ExpertProjection, joined, opened, separate
from adapruner.models.structures import layer_modules
from tests.models import LinearExperts, small_model


@pytest.fixture
def projection() -> ExpertProjection:
    return layer_modules(small_model("qwen3-moe"))[0].down


def test_weights_are_those_of_one_mlp(projection: ExpertProjection) -> None:
    one = LinearExperts(projection.block)
    modules = layer_modules(small_model("qwen3-moe"))[0].projections
    for name in ("gate", "up", "down"):
        linear = getattr(one, f"{name}_proj")
        assert torch.equal(modules[name].weight, linear.weight)
        assert (modules[name].out_features, modules[name].in_features) == linear.weight.shape


def test_a_joined_projection_separates_again(projection: ExpertProjection) -> None:
    down = projection.weights.down
    assert torch.equal(separate(joined(down), len(down)), down)


def test_an_opened_block_computes_the_same_and_shows_the_inputs_of_one_mlp(
    projection: ExpertProjection,
) -> None:
    hidden = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))
    before, one, inputs = projection.block(hidden), LinearExperts(projection.block), []
    one.down_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    one(hidden)
    seen = torch.zeros_like(inputs[0])

    def see(name: str, expert: Expert, x: Tensor, _: Any) -> None:
        if name == "down":
            seen[..., expert.channels] = expert.spread(x)

    with opened(projection, see):
        torch.testing.assert_close(projection.block(hidden), before, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(seen, inputs[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(projection.block(hidden), before), "the block is as it was"


def test_an_opened_block_keeps_a_wrapper_of_its_forward_pass(projection: ExpertProjection) -> None:
    block, calls = projection.block, []
    inner = block.forward
    block.forward = lambda hidden: calls.append(hidden) or inner(hidden)
    with opened(projection, lambda *_: None):
        pass
    block(torch.randn(1, 3, 32))
    assert len(calls) == 1


def test_a_removed_expert_takes_its_row_of_the_router(projection: ExpertProjection) -> None:
    kept = projection.weights.keeping([*range(48, 52), *range(180, 184)])  # of the experts 1 and 3
    assert kept.shape == (2, 4)
    assert torch.equal(kept.router, projection.router.weight[[1, 3]])
    assert torch.equal(kept.down[1], projection.experts.down_proj[3, :, 36:40])
    gate, up = projection.experts.gate_up_proj[1].chunk(2)
    assert torch.equal(kept.gate_up[0], torch.cat([gate[:4], up[:4]]))
