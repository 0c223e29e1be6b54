"""Checkpoints are checked before use, saved completely, and their code never runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage.sources import resolve
from adapruner.models.structures import describe_model
from adapruner.pruning.plan import Update
from tests.adapruner.conftest import Workplace
from tests.adapruner.models.checkpoints import (
    WIDTHS,
    copy_of,
    edit_config,
    per_layer_model,
)
from tests.adapruner.pruning.plans import plan_for
from tests.models import small_model

CPU = ModelConfig(source="unused", device="cpu")

INVALID: dict[str, tuple[Callable[[Path], object], str]] = {
    "other width": (
        lambda c: edit_config(c, intermediate_size=64),
        r"does not fit the weights: 'model.layers.0.mlp.gate_proj.weight' is \[48, 32\]",
    ),
    "other vocabulary": (
        lambda c: edit_config(c, vocab_size=200),
        r"'model.embed_tokens.weight' is \[96, 32\], the config requires \[200, 32\]",
    ),
    "head absent": (
        lambda c: edit_config(c, tie_word_embeddings=False),
        "the weights lack 'lm_head.weight'",
    ),
    "biases absent": (
        lambda c: edit_config(c, attention_bias=True),
        "the weights lack 'model.layers.0.self_attn.q_proj.bias'",
    ),
    "fewer layers": (
        lambda c: edit_config(c, num_hidden_layers=2),
        "the weights hold 'model.layers.2.*no place for",
    ),
    "more layers": (
        lambda c: edit_config(c, num_hidden_layers=9),
        "the weights lack 'model.layers.4",
    ),
    "heads that do not divide the hidden size": (
        lambda c: edit_config(c, num_attention_heads=3),
        "is not a readable model config",
    ),
    "KV groups of unequal size": (
        lambda c: edit_config(c, num_key_value_heads=3),
        "config",
    ),
    "no causal model": (
        lambda c: edit_config(c, architectures=["LlamaForSequenceClassification"]),
        "LlamaForSequenceClassification is not a causal language model",
    ),
    "unsupported architecture": (
        lambda c: edit_config(c, model_type="gpt2", architectures=["GPT2LMHeadModel"]),
        "GPT2LMHeadModel is not supported",
    ),
    "unknown type": (lambda c: edit_config(c, model_type="nonesuch"), "config.json"),
    "damaged config": (lambda c: (c / "config.json").write_text("{"), "config.json"),
    "config absent": (lambda c: (c / "config.json").unlink(), r"has no config\.json"),
}


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_checkpoint_is_refused_in_one_line(
    what: str, workplace: Workplace, tmp_path: Path
) -> None:
    checkpoint = copy_of(workplace, tmp_path)
    change, message = INVALID[what]
    change(checkpoint)
    with pytest.raises(UserError, match=message) as error:
        ckpt.inspect(checkpoint)
    assert "\n" not in str(error.value)


def test_inspect_gives_the_structures_of_the_loaded_model(workplace: Workplace) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    assert ckpt.inspect(workplace.checkpoint) == describe_model(model)


def test_a_loaded_model_is_in_eval_mode_with_frozen_weights(workplace: Workplace) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model, torch.bfloat16)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert model.dtype == torch.bfloat16


def test_data_type_auto_is_one_that_the_device_computes_fast(workplace: Workplace) -> None:
    auto = workplace.model.model_copy(update={"dtype": "auto", "device": "cpu"})
    name = ckpt.compute_dtype(auto)
    assert name in ("float32", "bfloat16")
    assert ckpt.load_model(workplace.checkpoint, auto).dtype == getattr(torch, name)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        assert name == "bfloat16"


@pytest.mark.parametrize("device", ["cuda:77", "mps"])
def test_a_device_that_is_not_available_is_named(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is available")
    with pytest.raises(UserError, match=f"'{device}' is not available"):
        ckpt.device_of(ModelConfig(source="x", device=device))


def test_a_checkpoint_without_a_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    small_model("llama").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no usable tokenizer") as error:
        ckpt.load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_saved_weights_reload_bit_for_bit_in_their_data_type(
    dtype: torch.dtype, workplace: Workplace, tmp_path: Path
) -> None:
    model = small_model("llama").to(dtype)
    ckpt.save_checkpoint(model, workplace.checkpoint, tmp_path)
    assert ckpt.stored_dtype(tmp_path) == dtype
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert reloaded.dtype == dtype
    weights = reloaded.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in model.state_dict().items())


def test_a_saved_checkpoint_has_the_tokenizer_and_no_path_of_this_machine(
    workplace: Workplace, tmp_path: Path
) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    ckpt.save_checkpoint(model, workplace.checkpoint, tmp_path)
    assert ckpt.load_tokenizer(tmp_path)("w7").input_ids == [7]
    assert str(workplace.checkpoint.parent) not in (tmp_path / "config.json").read_text()


def test_tied_embeddings_are_stored_once(workplace: Workplace, tmp_path: Path) -> None:
    ckpt.save_checkpoint(small_model("llama"), workplace.checkpoint, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize("kind", ["qwen3-moe", "qwen3-moe-mixed"])
def test_experts_are_stored_one_by_one_as_transformers_does(
    kind: str, workplace: Workplace, tmp_path: Path
) -> None:
    own, stock = tmp_path / "own", tmp_path / "stock"
    own.mkdir()
    ckpt.save_checkpoint(small_model(kind), workplace.checkpoint, own)
    small_model(kind).save_pretrained(stock)
    weights, expected = (load_file(folder / "model.safetensors") for folder in (own, stock))
    assert any(".experts.3.down_proj." in name for name in weights)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], w) for name, w in expected.items())


def test_a_copy_of_a_per_layer_checkpoint_has_this_packages_modeling_file(
    workplace: Workplace, tmp_path: Path
) -> None:
    saved, copy = tmp_path / "saved", tmp_path / "copy"
    saved.mkdir()
    copy.mkdir()
    model = per_layer_model(small_model("llama"), WIDTHS)
    ckpt.save_checkpoint(model, workplace.checkpoint, saved)
    modeling = (saved / ckpt.MODELING_FILE).read_text()
    (saved / ckpt.MODELING_FILE).write_text("raise RuntimeError")
    ckpt.copy_checkpoint(saved, copy)
    assert (copy / ckpt.MODELING_FILE).read_text() == modeling
    assert ckpt.inspect(copy) == describe_model(model)


def test_a_copy_shares_the_files_on_disk(workplace: Workplace, tmp_path: Path) -> None:
    ckpt.copy_checkpoint(workplace.checkpoint, tmp_path)
    for file in ckpt.checkpoint_files(workplace.checkpoint):
        assert os.path.samefile(file, tmp_path / file.name)  # noqa: PTH121 (two paths)


def test_code_in_a_checkpoint_neither_runs_nor_is_copied(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, ran = copy_of(workplace, tmp_path), tmp_path / "out", tmp_path / "ran"
    (source / "evil.py").write_text(
        f"import pathlib; pathlib.Path({str(ran)!r}).touch()\nclass Evil: pass\n"
    )
    edit_config(source, auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})
    file = source / "tokenizer_config.json"
    fields = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    file.write_text(json.dumps(fields))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    out.mkdir()
    ckpt.copy_checkpoint(source, out)
    for checkpoint in (source, out):
        ckpt.inspect(checkpoint)
        ckpt.load_model(checkpoint, CPU)
        with contextlib.suppress(UserError):
            ckpt.load_tokenizer(checkpoint)
    assert not ran.exists()
    assert not list(out.glob("*.py"))


def test_weight_files_that_are_not_part_of_the_model_do_not_count(
    workplace: Workplace, tmp_path: Path
) -> None:
    checkpoint = copy_of(workplace, tmp_path)
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "consolidated.safetensors")
    original = workplace.checkpoint
    assert ckpt.inspect(checkpoint) == ckpt.inspect(original)
    assert ckpt.size_on_disk(checkpoint) == ckpt.size_on_disk(original)
    names = [[file.name for file in ckpt.checkpoint_files(c)] for c in (checkpoint, original)]
    assert names[0] == names[1]


def test_the_shares_of_the_update_are_those_of_the_plan_beside_the_checkpoint(
    tmp_path: Path,
) -> None:
    assert ckpt.update_shares(tmp_path) == (), "without a plan"
    plan = plan_for(small_model("llama"), "half")
    plan.write_file(tmp_path / ckpt.PLAN_FILE)
    assert ckpt.update_shares(tmp_path) == ()
    changed = plan.model_copy(update={"update": Update(shares=(0.25, 0.75))})
    changed.write_file(tmp_path / ckpt.PLAN_FILE)
    assert ckpt.update_shares(tmp_path) == (0.25, 0.75)


@pytest.mark.parametrize(
    "quantization",
    [{"quant_method": "gptq", "bits": 4}, {"quant_method": "fp8"}, {"load_in_8bit": True}],
)
def test_a_quantized_checkpoint_is_refused_from_its_config(
    quantization: dict[str, Any], workplace: Workplace, tmp_path: Path
) -> None:
    directory = copy_of(workplace, tmp_path)
    edit_config(directory, quantization_config=quantization)
    with pytest.raises(UserError, match=r"is quantized .* give the checkpoint in full precision"):
        resolve(ModelConfig(source=str(directory)))


def test_a_prompt_without_tokens_is_refused(workplace: Workplace) -> None:
    ckpt.check_prompts(workplace.checkpoint, ["w7 w8"])
    with pytest.raises(UserError, match=r"evaluation.prompts: '  ' has no tokens"):
        ckpt.check_prompts(workplace.checkpoint, ["w7", "  "])
