"""AST: the result is 2:4, equals the trained masked model, and learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.data.pool import Pool
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import mean_loss
from adapruner.models.semi_structured import mask_of, projections
from adapruner.models.storage.checkpoint import BRANCH, load_model, save_checkpoint
from adapruner.pruning.semi_structured import make_sparse
from adapruner.recovery.finetune import CHECKPOINT
from adapruner.recovery.results import RecoveryResult
from adapruner.recovery.training.training_data import HELD_OUT_WINDOWS
from tests.adapruner.conftest import Workplace
from tests.adapruner.recovery.requests import recovered, settings, start_and_end
from tests.models import small_model, tokens

FAMILIES = ("llama", "llama-biased", "qwen2", "phi3", "qwen3-moe-mixed")


def sparse(work: Workplace, kind: str, root: Path) -> tuple[Workplace, Path]:
    """A workplace with the sparse checkpoint of a small model, and the dense checkpoint."""
    dense, cut = root / "dense", root / "cut"
    for folder in (dense, cut):
        folder.mkdir()
        model = small_model(kind)
        if folder is cut:
            make_sparse(model, {})
        save_checkpoint(model, work.checkpoint, folder)
    return replace(work, checkpoint=cut), dense


def trained(work: Workplace, kind: str, root: Path, **changes: Any) -> RecoveryResult:
    place, dense = sparse(work, kind, root)
    config = settings(method="ast", **changes)
    return recovered(place, config, root / "out", dense=dense)


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_checkpoint_is_2_4_and_equals_the_trained_model(
    kind: str, workplace: Workplace, tmp_path: Path
) -> None:
    result = trained(workplace, kind, tmp_path, steps=4, mask_steps=2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / CHECKPOINT)
    dense = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert type(model) is type(dense)
    held_out = Pool.read(workplace.pool).held_out[:HELD_OUT_WINDOWS]
    assert mean_loss(model, held_out) == pytest.approx(result.curve[-1].held_out, rel=1e-5)
    before, names = dense.state_dict(), set(projections(model))
    for name, weight in model.state_dict().items():
        is_changed = not torch.equal(weight, before[name])
        assert is_changed == (name in names), name
        if name in names:
            assert ((weight.unflatten(-1, (-1, 4)) != 0).sum(-1) == 2).all(), name


def test_training_lowers_the_loss(workplace: Workplace, tmp_path: Path) -> None:
    result = trained(workplace, "llama", tmp_path, steps=60)
    start, end = start_and_end(result)
    assert end < 0.8 * start
    assert (result.method, result.branch_params) == ("ast", 0)


def test_masks_change_with_the_shadow_weights(workplace: Workplace, tmp_path: Path) -> None:
    trained(workplace, "llama", tmp_path, steps=30, mask_steps=5)
    kept = {
        folder: {
            name: getattr(*owner) != 0
            for name, owner in projections(load_model(tmp_path / folder, workplace.model)).items()
        }
        for folder in ("cut", f"out/{CHECKPOINT}")
    }
    start, end = kept.values()
    moved = sum(int((start[name] != end[name]).sum()) for name in start)
    total = sum(mask.numel() for mask in start.values())
    assert 0 < moved < total / 2


@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3"])
def test_branches_are_an_adapter_of_the_sparse_checkpoint(
    kind: str, workplace: Workplace, tmp_path: Path
) -> None:
    from peft import PeftModel

    result = trained(workplace, kind, tmp_path, steps=4, branch_rank=3)
    out, ids = tmp_path / "out" / CHECKPOINT, tokens(2, 12).long()
    held_out = Pool.read(workplace.pool).held_out[:HELD_OUT_WINDOWS]
    model = load_model(out, workplace.model)
    assert mean_loss(model, held_out) == pytest.approx(result.curve[-1].held_out, rel=1e-5)
    base = AutoModelForCausalLM.from_pretrained(out)
    assert not [name for name, _ in base.named_parameters() if "lora" in name]
    alone = base(ids).logits
    stock = PeftModel.from_pretrained(base, str(out / BRANCH))
    torch.testing.assert_close(stock(ids).logits, model(ids).logits)
    assert not torch.allclose(alone, model(ids).logits, atol=1e-3)
    counted = sum(w.numel() for n, w in stock.named_parameters() if "lora" in n)
    assert result.branch_params == counted
    merged = stock.merge_and_unload()
    dense = [n for n, owner in projections(merged).items() if (getattr(*owner) != 0).all()]
    assert len(dense) == len(projections(merged)), "merged weights are no longer 2:4"
    assert str(tmp_path) not in (out / BRANCH / "adapter_config.json").read_text()


def test_experts_have_no_branch(workplace: Workplace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"finetune\.branch_rank"):
        trained(workplace, "qwen3-moe", tmp_path, branch_rank=2)


def test_the_first_step_is_that_of_the_pruned_model(workplace: Workplace, tmp_path: Path) -> None:
    result = trained(workplace, "llama", tmp_path, steps=1, learning_rate=1e-12)
    cut = load_model(tmp_path / "cut", workplace.model)
    held_out = Pool.read(workplace.pool).held_out[:HELD_OUT_WINDOWS]
    assert mean_loss(cut, held_out) == pytest.approx(result.curve[-1].held_out, rel=1e-5)


def test_weights_keep_their_stored_data_type(workplace: Workplace, tmp_path: Path) -> None:
    place, dense = sparse(workplace, "llama", tmp_path)
    for folder in (dense, place.checkpoint):
        half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        half.save_pretrained(folder)
    model = workplace.model.model_copy(update={"dtype": "bfloat16"})
    config = settings(method="ast", steps=20, loss="both")
    result = recovered(replace(place, model=model), config, tmp_path / "out", dense=dense)
    start, end = start_and_end(result)
    assert end < start
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / CHECKPOINT)
    assert tuned.dtype == torch.bfloat16
    for owner in projections(tuned).values():
        kept = getattr(*owner) != 0
        assert (mask_of(kept.float()) | ~kept).all()
