"""The layer-by-layer update lowers the error on fresh text and changes nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from adapruner.errors import UserError
from adapruner.models.structures import layer_modules
from adapruner.pruning.plan import Update
from adapruner.pruning.reconstruction.least_squares import RIDGES, UpdateText, apply_and_update
from adapruner.pruning.surgery import apply
from tests.adapruner.pruning.plans import plan_for
from tests.models import KINDS, small_model, tokens


def mlp_outputs(model: Any, ids: Tensor, layer: int) -> Tensor:
    """The output of the MLP of a layer."""
    outputs = []
    handle = layer_modules(model)[layer].mlp.register_forward_hook(
        lambda _, __, output: outputs.append(output)
    )
    model(ids.long())
    handle.remove()
    return outputs[0]


def test_open_ridge_is_the_best_of_each_layer_on_fresh_text() -> None:
    model, plan = small_model("llama"), plan_for(small_model("llama"), "channels")
    samples, fresh = tokens(6, 16, seed=5), tokens(30, 16, seed=6)
    chosen = apply_and_update(copy.deepcopy(model), plan, UpdateText(samples, fresh=fresh), None)
    assert len(chosen) == sum(len(p.channels()) < 48 for p in plan.layers) > 1
    first = next(i for i, kept in enumerate(plan.layers) if len(kept.channels()) < 48)
    target = mlp_outputs(model, fresh, first)
    errors = {}
    for ridge in RIDGES:
        updated_model = copy.deepcopy(model)
        apply_and_update(updated_model, plan, UpdateText(samples), ridge)
        errors[ridge] = float((mlp_outputs(updated_model, fresh, first) - target).square().sum())
    assert chosen[0] == min(errors, key=lambda r: errors[r]), (
        "the layers below the first cut layer are dense"
    )
    assert len(set(errors.values())) == len(RIDGES)


@pytest.mark.parametrize("kind", KINDS)
def test_update_lowers_the_error_of_a_cut_block_on_fresh_text(kind: str) -> None:
    model, plan, fresh = small_model(kind), plan_for(small_model(kind), "ragged"), tokens(30, 16)
    cut, better = copy.deepcopy(model), copy.deepcopy(model)
    apply(cut, plan)
    apply_and_update(better, plan, UpdateText(tokens(120, 16, seed=5)), ridge=0.01)
    assert better.config.to_dict() == cut.config.to_dict()
    for modules, other in zip(layer_modules(better), layer_modules(cut), strict=True):
        for name in ("gate", "up", "query", "key", "value", "output"):
            assert torch.equal(modules.projections[name].weight, other.projections[name].weight)
    first = 1  # the first layer that loses channels; its input is the same in both
    dense = mlp_outputs(model, fresh, first)
    seen = copy.deepcopy(model)
    for index in range(first):
        seen.model.layers[index] = cut.model.layers[index]
    target = mlp_outputs(seen, fresh, first)
    errors = [(mlp_outputs(m, fresh, first) - target).square().mean() for m in (better, cut)]
    assert errors[0] < errors[1]
    assert target.shape == dense.shape


@pytest.mark.parametrize("kind", ["llama", "gemma-mqa"])
def test_update_changes_nothing_when_nothing_is_cut(kind: str) -> None:
    model, ids = small_model(kind), tokens(11, 16)
    before = model(ids.long()).logits
    apply_and_update(model, plan_for(model, "nothing"), UpdateText(ids), ridge=0.1)
    assert torch.equal(model(ids.long()).logits, before)


def test_update_on_weighted_samples_equals_the_update_on_the_mixed_text() -> None:
    model, plan = small_model("llama"), plan_for(small_model("llama"), "channels")
    samples, domain = tokens(20, 16, seed=5), torch.tensor([0] * 12 + [1] * 6 + [2] * 2)
    weights = Update(shares=(0.4, 0.6, 0.0)).sample_weights(domain)
    assert weights.mean() == pytest.approx(1)
    assert float(weights[:12].sum() / weights.sum()) == pytest.approx(0.4)
    assert not weights[18:].any()
    mixed = [n for n in range(18) for _ in range(1 if n < 12 else 3)]
    weighted, repeated = copy.deepcopy(model), copy.deepcopy(model)
    apply_and_update(weighted, plan, UpdateText(samples, weights), 0.05)
    apply_and_update(repeated, plan, UpdateText(samples[mixed]), 0.05)
    for one, other in zip(layer_modules(weighted), layer_modules(repeated), strict=True):
        torch.testing.assert_close(one.down.weight, other.down.weight, rtol=2e-3, atol=1e-4)


def test_shares_that_do_not_fit_the_pool_are_refused() -> None:
    with pytest.raises(UserError, match="one for each of the pool's 3 domains"):
        Update(shares=(0.5, 0.5)).sample_weights(torch.tensor([0, 1, 2]))
