"""Zeros by magnitude and by Wanda, and the sparse checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.config import PruningConfig, ReconstructionConfig
from adapruner.data.pool import Pool
from adapruner.errors import UnreachableError
from adapruner.models.semi_structured import mask_of, projections
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import describe_model
from adapruner.pruning.plan import PruningPlan, Sparsity, make_plan
from adapruner.pruning.semi_structured import input_norms, make_sparse, norms_for
from adapruner.pruning.target import PruningTarget
from tests.adapruner.pruning.plans import plan_for
from tests.adapruner.pruning.test_apply import pruned
from tests.models import small_model, tokens


def sparse_plan(model: Any, score: Any = "magnitude") -> PruningPlan:
    structures = describe_model(model)
    target = PruningTarget(structures, PruningConfig(layout="semi_structured"))
    keep = [(range(w.mlp_channels), range(w.query_heads)) for w in structures.layers]
    zeros = sum(getattr(*owner).numel() for owner in projections(model).values()) // 2
    sparsity = Sparsity(pattern="2:4", score=score, zeros=zeros)
    return make_plan(target, keep, {}).model_copy(update={"sparsity": sparsity})


def test_wanda_multiplies_by_the_norm_of_each_input() -> None:
    model, ids = small_model("qwen2"), tokens(3, 8)
    inputs: list[torch.Tensor] = []
    linear = model.model.layers[2].mlp.up_proj
    hook = linear.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model(ids.long())
    hook.remove()
    norms = input_norms(model, ids)
    name = "model.layers.2.mlp.up_proj.weight"
    torch.testing.assert_close(norms[name], inputs[0].flatten(0, 1).norm(dim=0))
    before = linear.weight.clone()
    zeros = make_sparse(model, norms)
    expected = mask_of(before.abs() * norms[name])
    assert torch.equal(linear.weight, before * expected)
    assert not torch.equal(expected, mask_of(before.abs()))
    assert zeros == sum(int((getattr(*owner) == 0).sum()) for owner in projections(model).values())


def test_wanda_is_refused_for_experts() -> None:
    with pytest.raises(UnreachableError, match=r"search\.metric wanda"):
        norms_for("wanda", small_model("qwen3-moe"), tokens(2, 8))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3", "qwen3-moe-mixed"])
def test_the_pruned_checkpoint_has_the_plans_zeros_and_the_stock_architecture(
    kind: str, tmp_path: Path
) -> None:
    model, ids = small_model(kind), tokens(2, 12).long()
    model.save_pretrained(tmp_path / "dense")
    plan = sparse_plan(model)
    out = pruned(tmp_path, plan, ReconstructionConfig(method="none"))
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert type(loaded) is type(model)
    assert plan.params.pruned == plan.params.dense == loaded.num_parameters()
    assert plan.ratio.achieved_all == plan.ratio.achieved_blocks == 0
    names = projections(model)
    assert plan.sparsity is not None
    assert plan.sparsity.zeros == sum(
        int((weight == 0).sum()) for n, weight in loaded.named_parameters() if n in names
    )
    for name, weight in model.named_parameters():
        mask = mask_of(weight.abs()) if name in names else torch.ones_like(weight)
        assert torch.equal(loaded.get_parameter(name), weight * mask), name
    make_sparse(model, {})
    assert torch.equal(model(ids).logits, loaded(ids).logits)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_kept_weights_keep_their_stored_bits(stored: torch.dtype, tmp_path: Path) -> None:
    model = small_model("llama").to(stored)
    model.save_pretrained(tmp_path / "dense")
    out = pruned(tmp_path, sparse_plan(model, "wanda"), ReconstructionConfig(method="none"))
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == ckpt.stored_dtype(out) == stored
    for name, owner in projections(loaded).items():
        weight = getattr(*owner)
        assert torch.equal(weight[weight != 0], model.get_parameter(name)[weight != 0]), name


def test_the_plan_of_other_layouts_has_no_field_of_sparsity(tmp_path: Path) -> None:
    model = small_model("llama")
    plan_for(model, "channels").write(tmp_path)
    assert "sparsity" not in (tmp_path / PruningPlan.FILE).read_text()
    plan = sparse_plan(model)
    plan.write(tmp_path)
    assert PruningPlan.read(tmp_path) == plan
    assert len((tmp_path / PruningPlan.FILE).read_text()) < 3000


def test_wanda_uses_the_calibration_set(tmp_path: Path) -> None:
    model = small_model("llama")
    model.save_pretrained(tmp_path / "dense")
    out = pruned(tmp_path, sparse_plan(model, "wanda"), ReconstructionConfig(method="none"))
    make_sparse(model, input_norms(model, Pool.read(tmp_path / "stage").calibration))
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert all(torch.equal(w, model.get_parameter(n)) for n, w in loaded.named_parameters())
