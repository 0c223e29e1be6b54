"""Fine-tuning in 4 bit: what is loaded, what is trained, and what is merged and exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGUFReader

from adapruner.config import ModelConfig
from adapruner.data.pool import Pool
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import mean_loss
from adapruner.export.export import export
from adapruner.models.groups import GROUPS_FILE
from adapruner.models.storage.checkpoint import load_model
from adapruner.models.storage.weights import rewrite_tensors
from adapruner.recovery.finetune import CHECKPOINT
from adapruner.recovery.grouped import write_merged
from adapruner.recovery.groups.model import grouped_layers, load_grouped
from adapruner.recovery.training.training_data import HELD_OUT_WINDOWS
from tests.adapruner.conftest import Workplace, write_tokenizer
from tests.adapruner.export.checkpoints import small, write
from tests.adapruner.models.checkpoints import per_layer_model
from tests.adapruner.recovery.requests import recovered, settings, start_and_end
from tests.models import small_model, tokens

DEVICE = ModelConfig(source="unused", device="cpu", dtype="float32")
WIDE, WIDER = {"intermediate_size": 64}, {"intermediate_size": 96}
GROUPED = settings(method="grouped")


def tuned(checkpoint: Path, device: ModelConfig = DEVICE) -> Any:
    """The model of a checkpoint in 4 bit, with a random update."""
    model = load_grouped(checkpoint, device, GROUPED)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in grouped_layers(model).values():
            layer.b.normal_(std=0.05, generator=generator)
    return model


def merged(model: Any, checkpoint: Path, folder: Path) -> Path:
    """The checkpoint that a tuned model is merged to."""
    out = folder / CHECKPOINT
    out.mkdir()
    write_merged(model, checkpoint, out)
    return out


@pytest.mark.parametrize("kind", ["llama", "llama-biased", "qwen2", "phi3", "gemma2", "granite"])
def test_the_merged_checkpoint_has_the_logits_of_the_tuned_model(kind: str, tmp_path: Path) -> None:
    checkpoint = write(small(kind, **WIDE), tmp_path / "in")
    model = tuned(checkpoint)
    again = load_model(merged(model, checkpoint, tmp_path), DEVICE)
    ids = tokens(2, 12).long()
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    original = load_model(checkpoint, DEVICE)
    for name, weight in again.state_dict().items():
        is_projection = "_proj.weight" in name
        assert torch.equal(weight, original.state_dict()[name]) != is_projection, name


def test_layers_of_their_own_widths_are_merged_and_fall_back_where_they_do_not_fit(
    tmp_path: Path,
) -> None:
    widths = {1: {"intermediate_size": 64}, 2: {"intermediate_size": 40}}
    checkpoint = write(small_per_layer(widths), tmp_path / "in")
    model = tuned(checkpoint)
    names = grouped_layers(model)
    assert "model.layers.1.mlp.down_proj" in names
    assert "model.layers.2.mlp.down_proj" not in names, "40 columns are no groups of 32"
    again = load_model(merged(model, checkpoint, tmp_path), DEVICE)
    ids = tokens(2, 12).long()
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)


def small_per_layer(widths: dict[int, dict[str, int]]) -> Any:
    return per_layer_model(small("llama", **WIDE), widths)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "phi3", "differ"])
def test_gguf_has_the_values_of_the_merged_checkpoint(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    stock = small_per_layer({1: WIDER}) if kind == "differ" else small(kind, **WIDE)
    checkpoint = write(stock.to(getattr(torch, dtype)), tmp_path / "in")
    out, file = merged(tuned(checkpoint), checkpoint, tmp_path), tmp_path / "out.gguf"
    export(out, "gguf", "q4_1", file, tmp_path / GROUPS_FILE)
    state = load_model(out, DEVICE).state_dict()
    tensors = [t for t in GGUFReader(file).tensors if t.tensor_type.name == "Q4_1"]
    assert len(tensors) == 4 * (4 if kind == "phi3" else 7), "every projection of four layers"
    for tensor in tensors:
        values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))
        _, layer, part, _ = tensor.name.split(".")
        name = FUSED.get(part, NAMES[part]) if kind == "phi3" else NAMES[part]
        if kind in ("llama", "differ") and part in ("attn_q", "attn_k"):
            heads = values.view(-1, 4, 2, values.shape[-1])
            values = heads.transpose(1, 2).reshape(values.shape)
        stored = values.to(getattr(torch, dtype)).float()
        assert torch.equal(stored, state[f"model.layers.{layer}.{name}.weight"]), tensor.name


NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_qkv": "self_attn.qkv_proj",
}  # fmt: skip
FUSED = {"ffn_up": "mlp.gate_up_proj"}
"""Part of GGUF -> projection; those of Phi-3 that differ."""


def test_a_file_without_the_groups_is_quantized_to_nearly_the_same(tmp_path: Path) -> None:
    checkpoint = write(small("llama", **WIDE), tmp_path / "in")
    out = merged(tuned(checkpoint), checkpoint, tmp_path)
    files = tmp_path / "exact.gguf", tmp_path / "again.gguf"
    for file, groups in zip(files, (tmp_path / GROUPS_FILE, None), strict=True):
        export(out, "gguf", "q4_1", file, groups)
    exact, again = (
        {t.name: gguf.dequantize(t.data, t.tensor_type) for t in GGUFReader(file).tensors}
        for file in files
    )
    for name, values in exact.items():
        np.testing.assert_allclose(again[name], values, rtol=2**-10, atol=1e-6)


@pytest.mark.parametrize("objective", ["data", "distill"])
def test_training_lowers_the_loss_and_writes_the_groups(
    objective: str, workplace: Workplace, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    model = small_model("llama", **WIDE)
    dense = saved(model, tmp_path / "dense")
    for name, weight in model.named_parameters():
        if "down_proj" in name:
            weight.data.mul_(0.5)
    work = replace(workplace, checkpoint=saved(model, damaged))
    changes = {"loss": objective, "learning_rate": 2e-3, "steps": 60}
    config = GROUPED.model_copy(update=changes if objective == "distill" else {"steps": 60})
    result = recovered(work, config, tmp_path / "out", dense=dense)
    start, end = start_and_end(result)
    assert end < 0.9 * start
    held_out = Pool.read(workplace.pool).held_out[:HELD_OUT_WINDOWS]
    loss = mean_loss(load_model(tmp_path / "out" / CHECKPOINT, workplace.model), held_out)
    assert loss == pytest.approx(result.curve[-1].held_out, rel=1e-5), "the merge changes nothing"
    assert (tmp_path / "out" / GROUPS_FILE).is_file()


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def test_activations_that_are_computed_again_give_the_same_weights(
    workplace: Workplace, tmp_path: Path
) -> None:
    curves = []
    for recompute in (True, False):
        config = GROUPED.model_copy(update={"steps": 3, "recompute": recompute})
        curves.append(recovered(workplace, config, tmp_path / str(recompute)).curve)
    for one, other in zip(*curves, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("qwen3-moe", 32, "experts of Qwen3MoeForCausalLM are no linear layers"),
        ("llama", 64, "group_size 64: the hidden size 32"),
    ],
)
def test_a_model_without_groups_is_refused(
    kind: str, size: int, message: str, workplace: Workplace, tmp_path: Path
) -> None:
    work = replace(workplace, checkpoint=saved(small_model(kind), tmp_path / "in"))
    with pytest.raises(UserError, match=message) as refused:
        recovered(work, GROUPED.model_copy(update={"group_size": size}), tmp_path / "out")
    assert "\n" not in str(refused.value) and "lora" in str(refused.value)


def test_an_interrupted_write_leaves_no_file(workplace: Workplace, tmp_path: Path) -> None:
    seen: list[str] = []

    def change(name: str, weight: torch.Tensor) -> torch.Tensor:
        seen.append(name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return weight

    source = workplace.checkpoint / "model.safetensors"
    with pytest.raises(KeyboardInterrupt):
        rewrite_tensors(source, tmp_path / "out.safetensors", change)
    assert not list(tmp_path.iterdir())
    rewrite_tensors(source, tmp_path / "out.safetensors", lambda name, weight: weight)
    assert (tmp_path / "out.safetensors").read_bytes() == source.read_bytes()
