"""GGUF files of families with keys, fixed settings or tensors of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.export.export import export
from adapruner.models.families import FAMILIES
from adapruner.models.storage import sources
from tests.adapruner.export.checkpoints import LAYERS, VOCABULARY, small
from tests.adapruner.export.gguf_files import exported, key, values
from tests.adapruner.models.checkpoints import per_layer_model
from tests.models import BASE, random_model, tokens

WINDOWS = [True, False, True, False]

KEYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma2": (
        {"query_pre_attn_scalar": 8},
        {
            "attention.sliding_window": 6,
            "attention.sliding_window_pattern": WINDOWS,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 4.0,
            "context_length": 64,
        },
    ),
    "gemma3": (
        {"query_pre_attn_scalar": 8},
        {
            "attention.sliding_window": 6,
            "attention.sliding_window_pattern": WINDOWS,
            "rope.freq_base": 1_000_000.0,
            "rope.freq_base_swa": 10_000.0,
        },
    ),
    "olmo3": (
        {"tie_word_embeddings": False},
        {"attention.sliding_window_pattern": [True, True, True, False]},
    ),
    "granite": (
        {},
        {"embedding_scale": 3.0, "residual_scale": 0.5, "logit_scale": 2.0},
    ),
    "phi3": ({}, {"rope.dimension_count": 4, "context_length": 6}),
    "phi3-long": ({}, {"rope.scaling.original_context_length": 4}),
    "glm4": ({}, {"rope.dimension_count": 8}),
    "smollm3": ({}, {"context_length": 6}),
}
"""Kind -> fields of the config that differ from it, and keys of the file."""


@pytest.mark.parametrize("kind", KEYS)
def test_a_family_has_the_keys_of_its_architecture(kind: str, tmp_path: Path) -> None:
    changes, expected = KEYS[kind]
    reader = exported(small(kind, **changes), tmp_path)
    assert {name: key(reader, f"*.{name}") for name in expected} == expected


def test_factors_of_long_contexts_are_stored(tmp_path: Path) -> None:
    stored = values(exported(small("phi3-long"), tmp_path))
    assert stored["rope_factors_long.weight"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert stored["rope_factors_short.weight"][1] == np.float32(1.1)


@pytest.mark.parametrize("kind", ["phi3", "glm", "glm4"])
def test_fused_projections_stay_fused_where_the_architecture_has_them(
    kind: str, tmp_path: Path
) -> None:
    model = small(kind)
    stored, layer = values(exported(model, tmp_path)), model.model.layers[1]
    assert np.array_equal(stored["blk.1.ffn_up.weight"], layer.mlp.gate_up_proj.weight)
    if kind == "phi3":
        assert np.array_equal(stored["blk.1.attn_qkv.weight"], layer.self_attn.qkv_proj.weight)
    else:
        assert np.array_equal(stored["blk.1.attn_q.weight"], layer.self_attn.q_proj.weight)


PLAIN = {
    "sliding_window": None,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
    },
}
"""Phi-3's fields without a window and with a full rotation."""


@pytest.mark.parametrize("layers", ["mlp", "heads"])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("granite", {"tie_word_embeddings": True}),
        ("granite", {"tie_word_embeddings": False, "mlp_bias": False}),
        ("phi3", PLAIN),
    ],
)
def test_deci_has_the_tensors_of_an_equal_llama(
    kind: str, changes: dict[str, Any], layers: str, tmp_path: Path
) -> None:
    model, ids = small(kind, layers, **changes), tokens(2, 12).long()
    reader = exported(model, tmp_path)
    assert key(reader, "general.architecture") == "deci"
    logits = llama_of(reader, model.config, layers)(ids).logits
    torch.testing.assert_close(logits, model(ids).logits, rtol=1e-4, atol=1e-4)


def llama_of(reader: GGUFReader, config: Any, layers: str) -> Any:
    """A Llama with the tensors of a file of the architecture `deci`, and its widths."""
    stored = values(reader)
    fields = BASE | {
        "model_type": "llama", "vocab_size": VOCABULARY, "rms_norm_eps": config.rms_norm_eps,
        "mlp_bias": "blk.0.ffn_up.bias" in stored,
        "tie_word_embeddings": "output.weight" not in stored,
    }  # fmt: skip
    llama = per_layer_model(random_model(fields, FAMILIES["llama"].architecture), LAYERS[layers])
    state = {}
    for name, tensor in stored.items():
        if ".attn_q." in name or ".attn_k." in name:
            tensor = tensor.reshape(-1, 4, 2, 32).swapaxes(1, 2).reshape(-1, 32)
        state[name] = torch.from_numpy(tensor.copy())
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            parameter.copy_(state.pop(stored_name(name)))
    assert not state
    return llama


PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "model.embed_tokens": "token_embd", "model.norm": "output_norm",
    "lm_head": "output", "model.layers": "blk",
}  # fmt: skip


def stored_name(name: str) -> str:
    """The name in GGUF of a Llama's tensor."""
    for part, stored in PARTS.items():
        name = name.replace(part, stored)
    return name


@pytest.mark.parametrize(
    ("kind", "layers", "changes", "message"),
    [
        ("gemma2", "equal", {}, "query_pre_attn_scalar is 16; 'gemma2' of GGUF has 8"),
        ("gemma2", "equal", {}, "; use another target$"),
        ("gemma2", "equal", {"query_pre_attn_scalar": 8, "attn_logit_softcapping": None}, "50.0"),
        ("gemma3", "mlp", {}, r"pruning\.layout: uniform"),
        ("smollm3", "equal", {"no_rope_layers": [1, 1, 1, 1]}, "no_rope_layers is"),
        ("smollm3", "equal", {"attention_bias": True}, "no place for .*o_proj.bias"),
        ("phi3", "mlp", {}, "partial_rotary_factor is 0.5; 'deci' of GGUF has 1.0"),
        ("phi3", "mlp", {}, r"; prune with pruning\.layout: uniform$"),
        ("phi3", "heads", {}, "prune with .*layout: uniform and .*attention: none$"),
        ("phi3", "uniform_heads", {}, "partial_rotary_factor .*with pruning.attention: none$"),
        ("glm", "uniform_heads", {}, r"pruning\.attention: none"),
    ],
)
def test_a_setting_that_the_architecture_does_not_have_is_refused(
    kind: str, layers: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if layers == "uniform_heads":
        layers, changes = "equal", changes | {"num_attention_heads": 2, "num_key_value_heads": 1}
    with pytest.raises(UserError, match=message) as error:
        exported(small(kind, layers, **changes), tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_decoder_outside_the_table_is_refused(tmp_path: Path) -> None:
    source, dense = tmp_path / "source", tmp_path / "dense"
    random_model(BASE | {"model_type": "seed_oss"}, "SeedOssForCausalLM").save_pretrained(source)
    dense.mkdir()
    resolved = sources.resolve(ModelConfig(source=str(source), family="auto"))
    try:
        sources.materialize(resolved, dense)
        with pytest.raises(UserError, match="it takes the families llama"):
            export(dense, "gguf", "f32", tmp_path / "out.gguf")
    finally:
        FAMILIES.pop("seed_oss", None)
