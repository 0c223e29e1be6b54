"""The least-squares update: it is the optimum, it helps on fresh text, and it cuts nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.models import checkpoint as ckpt
from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.pruning.apply import prune
from adapruner.pruning.reconstruction.least_squares import RIDGES, apply_and_update, updated
from adapruner.models.structures import layer_modules
from adapruner.pruning.surgery import apply
from tests.adapruner.pruning.test_surgery import plan_for
from tests.models import KINDS, small_model, tokens


def mlp_outputs(model: Any, ids: Tensor, layer: int) -> Tensor:
    """What the MLP of a layer adds to the hidden states."""
    found = []
    handle = layer_modules(model)[layer].mlp.register_forward_hook(
        lambda _, __, output: found.append(output)
    )
    model(ids.long())
    handle.remove()
    return found[0]


def test_the_update_minimises_its_objective() -> None:
    torch.manual_seed(0)
    x, weight, kept, ridge = torch.randn(50, 8), torch.randn(5, 8), [0, 2, 3, 6], 0.3
    strength = ridge * (x.T @ x).diagonal().mean()

    def objective(narrow: Tensor) -> Tensor:
        error = (x @ weight.T - x[:, kept] @ narrow.T).square().sum()
        return error + strength * (narrow - weight[:, kept]).square().sum()

    found = updated(weight, x.T @ x, kept, ridge).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(found), found)
    assert gradient.abs().max() < 1e-3 * objective(found)
    assert objective(found) < objective(weight[:, kept])


def test_an_open_ridge_is_the_best_of_each_layer_on_the_text_it_is_judged_on() -> None:
    model, plan = small_model("llama"), plan_for(small_model("llama"), "channels")
    samples, fresh = tokens(6, 16, seed=5), tokens(30, 16, seed=6)
    chosen = apply_and_update(copy.deepcopy(model), plan, samples, None, fresh)
    assert len(chosen) == sum(len(p.channels()) < 48 for p in plan.layers) > 1
    first = next(i for i, kept in enumerate(plan.layers) if len(kept.channels()) < 48)
    target = mlp_outputs(model, fresh, first)
    errors = {}
    for ridge in RIDGES:
        updated_model = copy.deepcopy(model)
        apply_and_update(updated_model, plan, samples, ridge)
        errors[ridge] = float((mlp_outputs(updated_model, fresh, first) - target).square().sum())
    assert chosen[0] == min(errors, key=lambda r: errors[r]), "what is below it is not cut yet"
    assert len(set(errors.values())) == len(RIDGES)


@pytest.mark.parametrize("kind", KINDS)
def test_it_lowers_the_error_of_a_cut_block_on_fresh_text(kind: str) -> None:
    model, plan, fresh = small_model(kind), plan_for(small_model(kind), "ragged"), tokens(30, 16)
    cut, better = copy.deepcopy(model), copy.deepcopy(model)
    apply(cut, plan)
    apply_and_update(better, plan, tokens(120, 16, seed=5), ridge=0.01)
    assert better.config.to_dict() == cut.config.to_dict()
    for modules, other in zip(layer_modules(better), layer_modules(cut), strict=True):
        for name in ("gate", "up", "query", "key", "value", "output"):
            assert torch.equal(modules.projections[name].weight, other.projections[name].weight)
    first = 1  # the first layer that loses channels; what it is given is the same in both
    dense = mlp_outputs(model, fresh, first)
    seen = copy.deepcopy(model)
    for index in range(first):
        seen.model.layers[index] = cut.model.layers[index]
    target = mlp_outputs(seen, fresh, first)
    errors = [(mlp_outputs(m, fresh, first) - target).square().mean() for m in (better, cut)]
    assert errors[0] < errors[1]
    assert target.shape == dense.shape


@pytest.mark.parametrize("kind", ["llama", "gemma-mqa"])
def test_nothing_changes_when_nothing_is_cut(kind: str) -> None:
    model, ids = small_model(kind), tokens(11, 16)
    before = model(ids.long()).logits
    apply_and_update(model, plan_for(model, "nothing"), ids, ridge=0.1)
    assert torch.equal(model(ids.long()).logits, before)


def test_a_pruned_checkpoint_is_updated_on_the_pool(tmp_path: Path) -> None:
    model = small_model("llama").to(torch.bfloat16)
    dense, stage = tmp_path / "dense", tmp_path / "stage"
    stage.mkdir()
    model.save_pretrained(dense)
    texts = {"update": tokens(40, 16), "objective": tokens(6, 16, seed=1)}
    save_file(texts, stage / "pool.safetensors")
    plan_for(model, "channels").write(stage / "plan.json")
    weights = {}
    for method in ("none", "least_squares"):
        out = tmp_path / method
        out.mkdir()
        settings = ReconstructionConfig(method=method)
        prune(dense, stage, stage, ModelConfig(source=str(dense), device="cpu"), settings, out)
        assert ckpt.stored_dtype(out) == torch.bfloat16
        weights[method] = load_file(out / "model.safetensors")
    differing = {
        name for name, weight in weights["none"].items()
        if not torch.equal(weight, weights["least_squares"][name])
    }  # fmt: skip
    assert differing == {f"model.layers.{i}.mlp.down_proj.weight" for i in range(4)}
