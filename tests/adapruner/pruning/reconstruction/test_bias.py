"""Bias compensation keeps the mean output, and stock checkpoints hold it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.errors import UnreachableError
from adapruner.importance.statistics import importance_table
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import describe_model, layer_modules
from adapruner.pruning.apply import prune
from adapruner.pruning.reconstruction import bias
from adapruner.pruning.surgery import apply
from tests.adapruner.pruning.plans import plan_for
from tests.adapruner.pruning.pools import write_pool
from tests.models import small_model, tokens

IDS = tokens(11, 16)


def outputs(model: Any, part: str, layer: int) -> Tensor:
    """The output of the MLP or the attention of a layer on IDS, [N, T, hidden]."""
    collected = []
    name = "down" if part == "mlp" else "output"
    handle = (
        layer_modules(model)[layer]
        .projections[name]
        .register_forward_hook(lambda _, __, output: collected.append(output))
    )
    model(IDS.long())
    handle.remove()
    return collected[0]


@pytest.mark.parametrize(
    ("kind", "what", "part"),
    [
        ("llama", "channels", "mlp"),
        ("llama-biased", "channels", "mlp"),
        ("llama-mha", "kv_groups", "attention"),
        ("llama-biased", "query_heads", "attention"),
    ],
)
def test_mean_output_of_the_first_cut_block_is_unchanged(kind: str, what: str, part: str) -> None:
    model = small_model(kind)
    plan = plan_for(model, what)
    cut, compensated = copy.deepcopy(model), copy.deepcopy(model)
    apply(cut, plan)
    added = bias.compensation(model, plan, IDS)
    apply(compensated, plan)
    bias.add_biases(compensated, added)
    means = [outputs(m, part, 0).mean((0, 1)) for m in (model, cut, compensated)]
    torch.testing.assert_close(means[2], means[0], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(means[1], means[0], rtol=1e-2)
    for modules, other in zip(layer_modules(cut), layer_modules(compensated), strict=True):
        for name, linear in modules.projections.items():
            assert torch.equal(linear.weight, other.projections[name].weight)


def test_input_means_equal_those_of_the_importance_table() -> None:
    model = small_model("llama")
    table, means = importance_table(model, IDS, []), bias.input_means(model, IDS)
    for name in ("down", "output"):
        for sums, mean in zip(table.input_sum[name], means[name], strict=True):
            torch.testing.assert_close(sums.sum(0) / IDS.numel(), mean, rtol=1e-4, atol=1e-6)


def pruned(kind: str, what: str, root: Path) -> Path:
    dense, stage, out = root / "dense", root / "stage", root / "out"
    stage.mkdir()
    out.mkdir()
    model = small_model(kind)
    model.save_pretrained(dense)
    write_pool(stage)
    plan_for(model, what).write(stage)
    settings = ModelConfig(source=str(dense), device="cpu")
    prune(dense, stage, stage, settings, ReconstructionConfig(method="bias"), out)
    return out


def test_stock_class_loads_the_biases_and_they_are_counted(tmp_path: Path) -> None:
    out = pruned("llama", "channels", tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert loaded.config.mlp_bias and not loaded.config.attention_bias
    model = small_model("llama")
    plan = plan_for(model, "channels")
    added = bias.compensation(model, plan, IDS)
    apply(model, plan)
    bias.add_biases(model, added)
    assert torch.equal(loaded(IDS.long()).logits, model(IDS.long()).logits)
    width = describe_model(loaded).layers[0].mlp_channels
    biases = 4 * (2 * width + 32)
    assert ckpt.inspect(out).total_params == plan.params.pruned + biases


def test_per_layer_checkpoint_holds_the_biases(tmp_path: Path) -> None:
    out = pruned("llama-mha", "ragged", tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert loaded.config.mlp_bias and loaded.config.attention_bias
    first = layer_modules(loaded)[0]
    assert not first.gate.bias.any() and not first.query.bias.any()
    assert torch.isfinite(loaded(IDS.long()).logits).all()


def test_family_without_mlp_biases_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="use least_squares or none") as error:
        pruned("qwen2", "channels", tmp_path)
    assert "Qwen2ForCausalLM" in str(error.value)
    assert "\n" not in str(error.value)
    assert not any((tmp_path / "out").iterdir())
