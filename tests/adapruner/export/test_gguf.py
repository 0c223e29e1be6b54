"""GGUF files, read back by gguf's reader and by Transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapruner.errors import UserError
from adapruner.export.architectures import ARCHITECTURES
from adapruner.export.export import export
from adapruner.models.storage.checkpoint import load_tokenizer
from tests.adapruner.conftest import write_tokenizer
from tests.adapruner.export.checkpoints import TEXT, VOCABULARY, small
from tests.adapruner.export.gguf_files import exported, key, values
from tests.models import KINDS, tokens

PER_LAYER = [
    kind
    for kind, fields in KINDS.items()
    if kind != "qwen2-sliding"  # its rotary scaling, yarn, is refused
    and fields["model_type"] not in ("granite", "phi3")  # in test_gguf_families.py
    and (row := ARCHITECTURES.get(fields["model_type"])) is not None
    and row.per_layer is not None
]


@pytest.mark.parametrize("kind", ["llama", "llama-mha", "mistral", "qwen2"])
def test_transformers_reads_equal_layers_back_with_the_same_logits(
    kind: str, tmp_path: Path
) -> None:
    model, ids = small(kind), tokens(2, 12).long()
    exported(model, tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="out.gguf", dtype=torch.float32
    )
    torch.testing.assert_close(reloaded(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "offset"), [("qwen3", 0), ("gemma-mqa", 1)])
def test_other_families_keep_the_order_of_rows(kind: str, offset: int, tmp_path: Path) -> None:
    model = small(kind)
    reader = exported(model, tmp_path)
    stored, layer = values(reader), model.model.layers[1]
    assert key(reader, "general.architecture") == model.config.model_type
    assert np.array_equal(stored["blk.1.attn_q.weight"], layer.self_attn.q_proj.weight)
    assert np.array_equal(stored["blk.1.attn_norm.weight"], layer.input_layernorm.weight + offset)
    assert np.array_equal(stored["output_norm.weight"], model.model.norm.weight + offset)
    if kind == "qwen3":
        assert np.array_equal(stored["blk.1.attn_q_norm.weight"], layer.self_attn.q_norm.weight)


@pytest.mark.parametrize("layers", ["mlp", "heads"])
@pytest.mark.parametrize("kind", PER_LAYER)
def test_layers_that_differ_are_written_for_deci(kind: str, layers: str, tmp_path: Path) -> None:
    model = small(kind, layers)
    reader = exported(model, tmp_path)
    stored, state = values(reader), model.state_dict()
    blocks = model.config.per_layer_config
    assert key(reader, "general.architecture") == "deci"
    assert key(reader, "*.feed_forward_length") == [b.intermediate_size for b in blocks]
    assert key(reader, "*.attention.head_count") == [b.num_attention_heads for b in blocks]
    assert key(reader, "*.attention.head_count_kv") == [b.num_key_value_heads for b in blocks]
    for name in ("*.attention.key_length", "*.attention.value_length", "*.rope.dimension_count"):
        assert key(reader, name) == 8
    for i in range(4):
        for theirs, ours in (("attn_v", "self_attn.v_proj"), ("ffn_down", "mlp.down_proj")):
            expected = state[f"model.layers.{i}.{ours}.weight"]
            assert np.array_equal(stored[f"blk.{i}.{theirs}.weight"], expected)
        for theirs, ours in (("attn_q", "q_proj"), ("attn_k", "k_proj")):
            for part in ("weight", "bias"):
                expected = state.get(f"model.layers.{i}.self_attn.{ours}.{part}")
                if expected is not None:
                    assert_pairs_are_neighbours(stored[f"blk.{i}.{theirs}.{part}"], expected)


def assert_pairs_are_neighbours(stored: np.ndarray[Any, Any], expected: torch.Tensor) -> None:
    """Rows 2j and 2j + 1 of a head of 8 rows are its rows j and j + 4."""
    for head in range(0, len(expected), 8):
        for j in range(4):
            assert np.array_equal(stored[head + 2 * j], expected[head + j])
            assert np.array_equal(stored[head + 2 * j + 1], expected[head + j + 4])


@pytest.mark.parametrize("kind", ["qwen3", "gemma-mqa"])
def test_a_family_without_an_architecture_for_layers_that_differ_is_refused(
    kind: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"pruning\.layout: uniform") as error:
        exported(small(kind, "mlp"), tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("kind", "layers", "message"),
    [
        ("olmo3", "equal", "tie_word_embeddings is True; 'olmo2' of GGUF has False"),
        ("qwen2-sliding", "mlp", "by 'yarn'"),
    ],
)
def test_what_gguf_does_not_hold_is_refused(
    kind: str, layers: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        exported(small(kind, layers), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_tokenizer_is_stored_with_the_name_of_its_pre_tokenizer(tmp_path: Path) -> None:
    reader = exported(small("llama"), tmp_path)
    tokenizer = load_tokenizer(tmp_path / "in")
    assert key(reader, "tokenizer.ggml.model") == "gpt2"
    assert key(reader, "tokenizer.ggml.pre") == "smollm"
    names = key(reader, "tokenizer.ggml.tokens")
    assert len(names) == VOCABULARY
    assert names[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    types = key(reader, "tokenizer.ggml.token_type")
    assert types[:3] == [gguf.TokenType.CONTROL] * 3
    assert types[-1] == gguf.TokenType.UNUSED
    assert key(reader, "tokenizer.ggml.eos_token_id") == tokenizer.eos_token_id
    assert key(reader, "tokenizer.ggml.add_bos_token") is False
    assert key(reader, "tokenizer.chat_template") == tokenizer.chat_template
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="out.gguf")
    word = TEXT.split(" 13")[0]
    assert again(word).input_ids == tokenizer(word).input_ids


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    assert "output.weight" not in values(exported(small("llama"), tmp_path))


@pytest.mark.parametrize(("tensor_type", "error"), [("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 1e-2)])
def test_values_are_those_of_the_checkpoint_within_the_type(
    tensor_type: str, error: float, tmp_path: Path
) -> None:
    model = small("llama")
    reader = exported(model, tmp_path, tensor_type)
    stored, weight = values(reader), model.model.layers[0].mlp.up_proj.weight.numpy()
    assert np.abs(stored["blk.0.ffn_up.weight"] - weight).max() < error * np.abs(weight).max()
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["blk.0.ffn_up.weight"] == tensor_type.upper()
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    if tensor_type == "q8_0":
        assert kinds["blk.0.ffn_down.weight"] == "F16", "its rows of 48 are not whole blocks"


def test_scaled_frequencies_are_stored_as_factors(tmp_path: Path) -> None:
    model = small("llama")
    scaling = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    }  # fmt: skip
    model.config.rope_parameters = scaling
    factors = values(exported(model, tmp_path))["rope_freqs.weight"]
    scaled = type(model)(model.config).model.rotary_emb.inv_freq
    plain = small("llama").model.rotary_emb.inv_freq
    np.testing.assert_allclose(factors, (plain / scaled).numpy(), rtol=1e-6)


def test_scaling_that_gguf_does_not_store_is_refused(tmp_path: Path) -> None:
    model = small("qwen3")
    model.config.rope_parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(UserError, match="rotary frequencies by 'linear'"):
        exported(model, tmp_path)


def test_the_context_ends_with_the_sliding_window(tmp_path: Path) -> None:
    model = small("mistral")
    model.config.sliding_window = 32
    assert key(exported(model, tmp_path), "*.context_length") == 32


def test_a_tokenizer_that_gguf_does_not_take_leaves_the_earlier_file(tmp_path: Path) -> None:
    exported(small("llama"), tmp_path)
    before = (tmp_path / "out.gguf").read_bytes()
    write_tokenizer(tmp_path / "in")
    with pytest.raises(UserError, match="kind WordLevel"):
        export(tmp_path / "in", "gguf", "f16", tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out.gguf"}
