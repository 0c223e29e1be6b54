"""Weight files: damaged, absent and superfluous ones are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapruner.errors import UserError
from adapruner.models.storage import weights
from adapruner.models.storage.checkpoint import inspect
from tests.adapruner.conftest import Workplace
from tests.adapruner.models.checkpoints import copy_of, edit_tensors, truncate_weights


def write_index(checkpoint: Path, text: str) -> None:
    (checkpoint / weights.INDEX_FILE).write_text(text)


def untie(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1


OUTSIDE = json.dumps({"weight_map": {"x": "../model.safetensors"}})

DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate_weights, "damaged or truncated"),
    "absent": (lambda c: (c / "model.safetensors").unlink(), r"neither model\.safetensors"),
    "pickled": (
        lambda c: (c / "model.safetensors").rename(c / "pytorch_model.bin"),
        r"neither model\.safetensors",
    ),
    "a norm is absent": (
        lambda c: edit_tensors(c, lambda tensors: tensors.pop("model.norm.weight")),
        "the weights lack 'model.norm.weight'",
    ),
    "two embeddings with a tied config": (
        lambda c: edit_tensors(c, untie),
        "ties the embeddings, but the weights hold two different",
    ),
    "damaged index": (lambda c: write_index(c, "{"), "is not an index of safetensors"),
    "empty index": (lambda c: write_index(c, "{}"), "is not an index of safetensors"),
    "index that leaves the directory": (lambda c: write_index(c, OUTSIDE), "its index names"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_weights_are_refused_in_one_line(
    what: str, workplace: Workplace, tmp_path: Path
) -> None:
    checkpoint = copy_of(workplace, tmp_path)
    damage, message = DAMAGE[what]
    damage(checkpoint)
    with pytest.raises(UserError, match=message) as error:
        inspect(checkpoint)
    assert "\n" not in str(error.value)


def test_a_stored_copy_of_tied_embeddings_is_accepted(workplace: Workplace, tmp_path: Path) -> None:
    checkpoint = copy_of(workplace, tmp_path)

    def store_twice(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    edit_tensors(checkpoint, store_twice)
    assert inspect(checkpoint) == inspect(workplace.checkpoint)


def test_rotary_buffers_of_old_checkpoints_are_ignored(
    workplace: Workplace, tmp_path: Path
) -> None:
    checkpoint = copy_of(workplace, tmp_path)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(checkpoint, lambda tensors: tensors.update({name: torch.ones(4)}))
    assert name in weights.tensor_shapes(checkpoint)
    assert inspect(checkpoint) == inspect(workplace.checkpoint)


def test_shapes_and_sizes_are_those_of_all_files_of_an_index(
    workplace: Workplace, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(workplace.checkpoint)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    files = weights.weight_files(tmp_path)
    assert len(files) > 1
    assert weights.tensor_shapes(tmp_path) == weights.tensor_shapes(workplace.checkpoint)
    assert weights.size_on_disk(tmp_path) == sum(file.stat().st_size for file in files)
    assert weights.stored_dtype(tmp_path) == torch.float32


def test_the_data_type_of_several_holds_the_values_of_all(
    workplace: Workplace, tmp_path: Path
) -> None:
    checkpoint = copy_of(workplace, tmp_path)
    types = {"model.norm.weight": torch.float16, "model.embed_tokens.weight": torch.bfloat16}

    def mix(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(types.get(name, torch.bfloat16))

    edit_tensors(checkpoint, mix)
    assert weights.stored_dtype(checkpoint) == torch.float32
    stored = weights.stored_dtypes(checkpoint)
    assert stored == dict.fromkeys(stored, torch.bfloat16) | types


def test_weights_without_a_floating_point_tensor_have_no_data_type(
    workplace: Workplace, tmp_path: Path
) -> None:
    checkpoint = copy_of(workplace, tmp_path)

    def only_integers(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.int()

    edit_tensors(checkpoint, only_integers)
    with pytest.raises(UserError, match="no floating-point weights"):
        weights.stored_dtype(checkpoint)
