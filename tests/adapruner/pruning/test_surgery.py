"""A cut model computes what the masked model computes, and reloads with the same logits."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.errors import UserError
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import describe_model
from adapruner.pruning.surgery import apply, narrowed
from tests.adapruner.pruning.plans import masked, plan_for, plan_keeping
from tests.models import KINDS, small_model, tokens


@pytest.mark.parametrize("kind", KINDS)
def test_ratio_zero_leaves_the_logits_identical(kind: str) -> None:
    model, ids = small_model(kind), tokens(2, 12).long()
    plan = plan_for(model, "nothing")
    assert plan.ratio.achieved_all == 0
    before = model(ids).logits
    with narrowed(model, plan):
        assert torch.equal(model(ids).logits, before)
    apply(model, plan)
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("what", ["channels", "experts", "kv_groups", "query_heads", "ragged"])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_model_equals_the_masked_model_and_reloads_with_identical_logits(
    kind: str, what: str, tmp_path: Path
) -> None:
    model, ids = small_model(kind), tokens(2, 12).long()
    plan = plan_for(model, what)
    before = model(ids).logits
    with masked(model, plan):
        expected = model(ids).logits
    with narrowed(model, plan):
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(ids).logits, before), "narrowed() restores the dense model"

    dense, out = tmp_path / "dense", tmp_path / "out"
    out.mkdir()
    model.save_pretrained(dense)
    apply(model, plan)
    cut = model(ids).logits
    torch.testing.assert_close(cut, expected, atol=1e-5, rtol=1e-5)
    ckpt.save_checkpoint(model, dense, out)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(reloaded(ids).logits, cut)
    assert ckpt.inspect(out).total_params == plan.params.pruned == reloaded.num_parameters()
    assert model.num_parameters() == plan.params.pruned
    assert str(tmp_path) not in (out / "config.json").read_text()


def test_pruned_model_can_be_pruned_again(tmp_path: Path) -> None:
    model, ids = small_model("qwen2"), tokens(1, 8).long()
    apply(model, plan_for(model, "ragged"))
    once = model.num_parameters()
    again = plan_for(model, "channels")
    with masked(model, again):
        expected = model(ids).logits
    apply(copy.deepcopy(model), again)
    apply(model, again)
    assert model.num_parameters() == again.params.pruned < once
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_plan_that_removes_heads_of_one_norm_is_refused() -> None:
    model = small_model("olmo2-mha")
    dense = describe_model(model).layers[0]
    keep = [(range(dense.mlp_channels), range(dense.query_heads - 1))] * 4
    plan = plan_keeping(describe_model(model), keep)
    with pytest.raises(UserError, match=r"removes query heads.*pruning\.attention: none"):
        apply(model, plan)


def test_plan_for_another_model_is_refused() -> None:
    with pytest.raises(UserError, match="make a plan for it"):
        apply(small_model("mistral"), plan_for(small_model("llama"), "channels"))
