"""LoRA improves the model, is merged into its weights and keeps their data type."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.data.pool import Pool
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import mean_loss
from adapruner.hashing import hash_directory
from adapruner.models.storage.checkpoint import PLAN_FILE, load_model, save_checkpoint
from adapruner.models.structures import check_dropout, describe_model
from adapruner.pruning.plan import Update
from adapruner.pruning.surgery import apply
from adapruner.recovery.adapters import add_adapters, drop_frozen_weights, weight_changes
from adapruner.recovery.finetune import CHECKPOINT
from adapruner.recovery.training.training_data import HELD_OUT_WINDOWS
from tests.adapruner.conftest import Workplace, write_tokenizer
from tests.adapruner.pruning.plans import plan_for
from tests.adapruner.recovery.requests import (
    recovered,
    settings,
    start_and_end,
    with_domains,
)
from tests.models import KINDS, small_model


def test_training_lowers_the_loss(workplace: Workplace, tmp_path: Path) -> None:
    result = recovered(workplace, settings(), tmp_path / "out")
    start, end = start_and_end(result)
    assert len(result.curve) == 30
    assert end < 0.8 * start


def test_adapters_are_merged_into_plain_weights(workplace: Workplace, tmp_path: Path) -> None:
    result = recovered(workplace, settings(), tmp_path / "out")
    model = load_model(tmp_path / "out" / CHECKPOINT, workplace.model)
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    held_out = Pool.read(workplace.pool).held_out[:HELD_OUT_WINDOWS]
    assert mean_loss(model, held_out) == pytest.approx(result.curve[-1].held_out, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_a_cut_model_are_merged(
    kind: str, workplace: Workplace, tmp_path: Path
) -> None:
    model, cut = small_model(kind), tmp_path / "cut"
    cut.mkdir()
    apply(model, plan_for(model, "ragged"))
    save_checkpoint(model, workplace.checkpoint, cut)
    work = replace(workplace, checkpoint=cut)
    result = recovered(work, settings(steps=2), tmp_path / "out")
    merged = load_model(tmp_path / "out" / CHECKPOINT, workplace.model)
    held_out = Pool.read(workplace.pool).held_out[:HELD_OUT_WINDOWS]
    assert mean_loss(merged, held_out) == pytest.approx(result.curve[-1].held_out, rel=1e-4)
    changed = {
        n for n, w in merged.state_dict().items() if not torch.equal(w, model.state_dict()[n])
    }
    names = {name.rsplit(".", 1)[-1] for name in describe_model(model).family.projections}
    if kind == "qwen3-moe":  # the other kind has an MLP as well
        names -= {"gate_proj", "up_proj", "down_proj"}
    names |= {"experts"} if "moe" in kind else set()
    assert {name.split(".")[-2] for name in changed} == names, "every projection has an adapter"


@pytest.mark.parametrize("kind", ["llama", "qwen3-moe"])
def test_the_changes_of_weights_do_not_need_the_weights(kind: str) -> None:
    adapted = add_adapters(small_model(kind), settings())
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    before = {name: change() for name, change in weight_changes(adapted).items()}
    drop_frozen_weights(adapted)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert sum(p.numel() for p in adapted.parameters()) == trained
    after = {name: change() for name, change in weight_changes(adapted).items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_without_experts_are_trained_with_dropout(
    workplace: Workplace, tmp_path: Path
) -> None:
    model, dense = small_model("qwen3-moe", mlp_only_layers=[0, 1, 2, 3]), tmp_path / "dense"
    check_dropout(describe_model(model))
    model.save_pretrained(dense)
    write_tokenizer(dense)
    work = replace(workplace, checkpoint=dense)
    start, end = start_and_end(recovered(work, settings(dropout=0.1), tmp_path / "out"))
    assert end < start


def test_distillation_recovers_a_damaged_model(workplace: Workplace, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(workplace.checkpoint, damaged)
    model = AutoModelForCausalLM.from_pretrained(damaged)
    for name, weight in model.named_parameters():
        if "down_proj" in name:
            weight.data.mul_(0.5)
    model.save_pretrained(damaged)
    work = replace(workplace, checkpoint=damaged)
    config = settings(loss="distill", steps=60, learning_rate=2e-3)
    result = recovered(work, config, tmp_path / "out", dense=workplace.checkpoint)
    start, end = start_and_end(result)
    assert 0 < end < 0.6 * start


def test_another_seed_gives_other_weights(workplace: Workplace, tmp_path: Path) -> None:
    for seed in (0, 1):
        recovered(workplace, settings(steps=3), tmp_path / str(seed), seed=seed)
    assert hash_directory(tmp_path / "0") != hash_directory(tmp_path / "1")


def test_weights_keep_their_stored_data_type(workplace: Workplace, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(workplace.checkpoint, half)
    model = AutoModelForCausalLM.from_pretrained(half, dtype=torch.float16)
    model.save_pretrained(half)
    device = workplace.model.model_copy(update={"dtype": "bfloat16"})
    work = replace(workplace, checkpoint=half, model=device)
    recovered(work, settings(steps=2), tmp_path / "out")
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / CHECKPOINT)
    assert tuned.dtype == torch.float16
    embedding = tuned.get_input_embeddings().weight
    assert torch.equal(embedding, model.get_input_embeddings().weight), "it is not trained"


def test_fewer_examples_than_a_batch_are_refused(workplace: Workplace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a batch needs 500") as refused:
        recovered(workplace, settings(batch_size=500), tmp_path / "out")
    assert "finetune.batch_size" in str(refused.value)


def with_plan(work: Workplace, out: Path, shares: tuple[float, ...]) -> Workplace:
    """The workplace with a plan beside its checkpoint, whose update has these shares."""
    shutil.copytree(work.checkpoint, out)
    plan = plan_for(load_model(work.checkpoint, work.model), "nothing")
    plan.model_copy(update={"update": Update(shares=shares)}).write_file(out / PLAN_FILE)
    return replace(work, checkpoint=out)


@pytest.mark.parametrize(
    ("plan", "setting", "expected"),
    [
        ((0.75, 0.25), None, (9, 3)),
        ((), None, (6, 6)),
        (None, None, (6, 6)),
        ((0.75, 0.25), (1.0, 2.0), (4, 8)),
    ],
)
def test_examples_have_the_shares_of_the_settings_else_of_the_plan(
    plan: tuple[float, ...] | None,
    setting: tuple[float, ...] | None,
    expected: tuple[int, int],
    workplace: Workplace,
    tmp_path: Path,
) -> None:
    work = with_domains(workplace, tmp_path / "pool", (30, 30))
    if plan is not None:
        work = with_plan(work, tmp_path / "pruned", plan)
    result = recovered(work, settings(steps=3, shares=setting), tmp_path / "out")
    assert result.examples_by_domain == expected
    assert result.examples == sum(expected)


@pytest.mark.parametrize(("setting", "expected"), [(None, (6, 6)), ((1.0, 2.0), (4, 8))])
def test_teacher_and_student_see_the_same_examples_whatever_the_plan_says(
    setting: tuple[float, ...] | None,
    expected: tuple[int, int],
    workplace: Workplace,
    tmp_path: Path,
) -> None:
    work = with_domains(workplace, tmp_path / "pool", (30, 30))
    work = with_plan(work, tmp_path / "pruned", (0.75, 0.25))
    config = settings(loss="distill", steps=3, shares=setting, learning_rate=1e-9)
    result = recovered(work, config, tmp_path / "out")
    assert result.examples_by_domain == expected
    # The student is the teacher, so its divergence on the teacher's examples is none.
    assert all(abs(point.loss) < 1e-4 for point in result.curve)
