"""Blocks with residual subsets compute what the masked model computes, saved, loaded and tuned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.config import PruningConfig
from adapruner.data.pool import Pool
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import mean_loss
from adapruner.export.contents import contents_of
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import describe_model
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import apply, narrowed
from adapruner.pruning.target import PruningTarget
from adapruner.recovery.finetune import CHECKPOINT
from adapruner.recovery.training.training_data import HELD_OUT_WINDOWS
from tests.adapruner.conftest import Workplace
from tests.adapruner.models.test_modeling import FRESH_PROCESS, run_elsewhere
from tests.adapruner.pruning.plans import plan_for, plan_with_subsets
from tests.adapruner.recovery.requests import recovered, settings
from tests.models import small_model, tokens

PRE_NORM = (
    "llama", "llama-biased", "llama-mha", "mistral-sliding", "qwen2", "qwen3", "gemma-mqa",
    "granite", "phi3", "phi3-long", "glm", "smollm3",
)  # fmt: skip
POST_NORM = ("gemma2", "gemma3", "olmo2-mha", "olmo3", "glm4")


@contextmanager
def zeroed(model: Any, plan: PruningPlan) -> Iterator[None]:
    """The dense model with zeros in the weights that the plan cuts, by no code of the library."""
    whole = {name: weight.clone() for name, weight in model.state_dict().items()}
    for layer, kept in zip(model.model.layers, plan.layers, strict=True):
        assert kept.residual is not None
        subsets = kept.residual.subsets
        for block, name in ((layer.self_attn, "attention"), (layer.mlp, "mlp")):
            for part, linear in block.named_children():
                if not isinstance(linear, torch.nn.Linear):
                    continue
                if part in ("o_proj", "down_proj"):
                    rows = set(range(linear.out_features)) - set(subsets[f"{name}_out"])
                    linear.weight[sorted(rows)] = 0
                    if linear.bias is not None:
                        linear.bias[sorted(rows)] = 0
                else:
                    columns = set(range(linear.in_features)) - set(subsets[f"{name}_in"])
                    linear.weight[:, sorted(columns)] = 0
        channels = set(range(layer.mlp.down_proj.in_features)) - set(kept.channels())
        layer.mlp.down_proj.weight[:, sorted(channels)] = 0
    yield
    model.load_state_dict(whole)


def cut_checkpoint(model: Any, plan: PruningPlan, folder: Path) -> Path:
    """Cuts the model in place and saves it below `folder`."""
    dense, out = folder / "dense", folder / "out"
    model.save_pretrained(dense)
    out.mkdir()
    apply(model, plan)
    ckpt.save_checkpoint(model, dense, out)
    return out


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", PRE_NORM)
def test_cut_model_equals_the_masked_model_and_reloads_with_identical_logits(
    kind: str, tied: bool, tmp_path: Path
) -> None:
    model, ids = small_model(kind, tie_word_embeddings=tied), tokens(2, 12).long()
    plan, before = plan_with_subsets(model), model(ids).logits
    with zeroed(model, plan):
        expected = model(ids).logits
    with narrowed(model, plan):
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(ids).logits, before), "narrowed() restores the dense model"
    out = cut_checkpoint(model, plan, tmp_path)
    cut = model(ids).logits
    torch.testing.assert_close(cut, expected, atol=1e-5, rtol=1e-5)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert type(reloaded).__name__.startswith("PerLayer")
    assert torch.equal(reloaded(ids).logits, cut)
    params = plan.params.pruned
    assert ckpt.inspect(out).total_params == reloaded.num_parameters() == params
    assert model.num_parameters() == params
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    cached = reloaded.generate(ids, **options)
    assert torch.equal(cached, reloaded.generate(ids, use_cache=False, **options))


def test_whole_subsets_give_the_logits_of_the_dense_model() -> None:
    model, ids = small_model("llama"), tokens(2, 12).long()
    plan, before = plan_with_subsets(model), model(ids).logits
    whole = plan_for(model, "nothing").layers[0].mlp_channels
    residual = dict.fromkeys(("attention_in", "attention_out", "mlp_in", "mlp_out"), "0-31")
    layers = tuple(
        layer.model_copy(
            update={
                "mlp_channels": whole,
                "residual": layer.residual and layer.residual.model_copy(update=residual),
            }
        )
        for layer in plan.layers
    )
    apply(model, plan.model_copy(update={"layers": layers}))
    assert torch.equal(model(ids).logits, before)


def test_checkpoint_loads_with_its_own_code_where_the_package_is_absent(tmp_path: Path) -> None:
    model, ids = small_model("qwen2"), tokens(2, 12).long()
    out = cut_checkpoint(model, plan_with_subsets(model), tmp_path)
    done = run_elsewhere(FRESH_PROCESS, tmp_path, json.dumps(ids.tolist()), str(out))
    assert done.returncode == 0, done.stderr
    logits = torch.load(out / "logits.pt")
    torch.testing.assert_close(logits, model(ids).logits, atol=1e-6, rtol=1e-5)


def test_indices_stay_integers_in_a_model_of_another_data_type(tmp_path: Path) -> None:
    model = small_model("llama")
    out = cut_checkpoint(model, plan_with_subsets(model), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    assert loaded.model.layers[0].mlp.reads.dtype == torch.int64
    assert loaded(tokens(1, 4).long()).logits.isfinite().all()


@pytest.mark.parametrize("kind", POST_NORM)
def test_norms_after_a_block_are_refused(kind: str) -> None:
    model = small_model(kind)
    with pytest.raises(UserError, match=r"residual_subsets does not suit.*norms after its blocks"):
        apply(model, plan_with_subsets(model))


def test_experts_are_refused() -> None:
    structures = describe_model(small_model("qwen3-moe"))
    target = PruningTarget(structures, PruningConfig(layout="residual_subsets"))
    with pytest.raises(UserError, match="its layers have experts"):
        target.check_layout()


def test_plan_for_another_width_or_with_some_layers_alone_is_refused() -> None:
    model = small_model("llama")
    plan = plan_with_subsets(small_model("llama", hidden_size=40))
    with pytest.raises(UserError, match=r"of 40, but the model has 32"):
        apply(model, plan)
    plan = plan_with_subsets(model)
    first, *others = plan.layers
    layers = (first.model_copy(update={"residual": None}), *others)
    with pytest.raises(UserError, match="layer 0 of the plan must have residual subsets"):
        apply(model, plan.model_copy(update={"layers": layers}))


def test_cut_model_is_neither_pruned_again_nor_exported(tmp_path: Path) -> None:
    model = small_model("llama")
    out = cut_checkpoint(model, plan_with_subsets(model), tmp_path)
    with pytest.raises(UserError, match="prune the dense model"):
        apply(model, plan_for(model, "nothing"))
    with pytest.raises(UserError, match="Transformers alone runs"):
        contents_of(out)


def test_plan_reads_back_and_others_have_no_subsets_in_their_file(tmp_path: Path) -> None:
    model = small_model("llama")
    plan = plan_with_subsets(model)
    plan.write(tmp_path)
    assert PruningPlan.read(tmp_path) == plan
    plan_for(model, "ragged").write(tmp_path)
    assert "residual" not in (tmp_path / PruningPlan.FILE).read_text()


def test_sizes_are_those_of_the_subsets() -> None:
    model = small_model("llama")
    plan = plan_with_subsets(model)
    apply(model, plan)
    for widths, layer in zip(describe_model(model).residual, plan.layers, strict=True):
        assert layer.residual is not None
        assert vars(widths) == {name: len(kept) for name, kept in layer.residual.subsets.items()}


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_adapters_of_a_cut_model_are_merged(
    kind: str, workplace: Workplace, tmp_path: Path
) -> None:
    model, cut = small_model(kind), tmp_path / "cut"
    cut.mkdir()
    apply(model, plan_with_subsets(model))
    ckpt.save_checkpoint(model, workplace.checkpoint, cut)
    work = replace(workplace, checkpoint=cut)
    result = recovered(work, settings(steps=4), tmp_path / "out")
    merged = ckpt.load_model(tmp_path / "out" / CHECKPOINT, workplace.model)
    held_out = Pool.read(workplace.pool).held_out[:HELD_OUT_WINDOWS]
    assert mean_loss(merged, held_out) == pytest.approx(result.curve[-1].held_out, rel=1e-4)
    before = model.state_dict()
    changed = {n for n, w in merged.state_dict().items() if not torch.equal(w, before[n])}
    parts = {name.split(".")[-2] for name in changed}
    family = describe_model(model).family
    assert parts == {name.rsplit(".", 1)[-1] for name in family.projections}
    assert not [name for name in changed if name.endswith(("reads", "writes"))]
