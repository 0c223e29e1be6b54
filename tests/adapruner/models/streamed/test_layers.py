"""Streamed models compute what whole ones do, with one layer in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapruner.config import ModelConfig
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.layers import decoder_layers, in_order, stream_model
from adapruner.models.streamed.passes import forward_passes
from adapruner.pruning.surgery import apply
from tests.adapruner.pruning.plans import plan_for, plan_with_subsets
from tests.models import KINDS, small_model, tokens

CPU = torch.device("cpu")


def whole_and_streamed(folder: Path, dtype: Any = "float32") -> tuple[Any, Any]:
    settings = ModelConfig(source=str(folder), device="cpu", dtype=dtype)
    return ckpt.load_model(folder, settings), stream_model(folder, CPU, getattr(torch, dtype))


def layers_in_memory(model: Any) -> list[int]:
    return [
        index
        for index, layer in enumerate(decoder_layers(model))
        if not all(weight.is_meta for weight in layer.parameters())
    ]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_every_family_are_bit_equal(kind: str, tmp_path: Path) -> None:
    small_model(kind).save_pretrained(tmp_path, max_shard_size="20KB")
    batches = [tokens(3, 12).long(), tokens(2, 12, seed=1).long(), tokens(1, 7, seed=2).long()]
    for dtype in ("float32", "bfloat16"):
        whole, streamed = whole_and_streamed(tmp_path, dtype)
        assert not any(weight.is_meta for weight in whole.parameters())
        assert torch.equal(streamed(batches[0]).logits, whole(batches[0]).logits)
        for batch in forward_passes(streamed, batches):
            assert torch.equal(streamed(batch).logits, whole(batch).logits)
        assert layers_in_memory(streamed) == []


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "qwen3-moe-mixed"])
def test_a_pruned_checkpoint_with_layers_of_its_own_widths_is_streamed(
    kind: str, tmp_path: Path
) -> None:
    dense, (beside, out) = small_model(kind), (tmp_path / "dense", tmp_path / "out")
    dense.save_pretrained(beside)
    out.mkdir()
    apply(dense, plan_with_subsets(dense) if kind == "llama" else plan_for(dense, "ragged"))
    ckpt.save_checkpoint(dense, beside, out)
    whole, streamed = whole_and_streamed(out)
    ids = tokens(2, 12).long()
    assert torch.equal(streamed(ids).logits, whole(ids).logits)


def test_one_layer_is_in_memory_at_its_turn(tmp_path: Path) -> None:
    small_model("llama").save_pretrained(tmp_path)
    whole, streamed = whole_and_streamed(tmp_path)
    order = []
    for index in in_order(streamed, slice(None, None, -1)):
        order.append(index)
        assert layers_in_memory(streamed) == [index]
        expected = decoder_layers(whole)[index].state_dict()
        for name, weight in decoder_layers(streamed)[index].state_dict().items():
            assert torch.equal(weight, expected[name])
    assert order == [3, 2, 1, 0] and layers_in_memory(streamed) == []


@torch.no_grad()
def test_a_sweep_that_ends_early_leaves_no_layer_and_the_model_works(tmp_path: Path) -> None:
    small_model("llama").save_pretrained(tmp_path)
    whole, streamed = whole_and_streamed(tmp_path)
    ids = tokens(2, 12).long()
    for _ in in_order(streamed):
        break
    for _ in forward_passes(streamed, [ids, ids]):
        break
    assert layers_in_memory(streamed) == []
    assert torch.equal(streamed(ids).logits, whole(ids).logits)
    options: Any = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(streamed.generate(ids, **options), whole.generate(ids, **options))
