"""Structures of models: their widths and their sizes in parameters."""

from __future__ import annotations

import pytest
import torch

from adapruner.errors import UserError
from adapruner.models.structures import LayerWidths, describe_model, layer_modules
from tests.adapruner.models.checkpoints import WIDTHS, per_layer_model
from tests.models import KINDS, small_model


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_add_up_to_the_parameters_of_the_model(kind: str) -> None:
    model = small_model(kind)
    structures = describe_model(model)
    assert structures.total_params == model.num_parameters()
    assert structures.block_params == sum(p.numel() for p in model.model.layers.parameters())
    # Neither norms nor the biases of down and output belong to a structure.
    other = sum(
        parameter.numel()
        for name, parameter in model.model.layers.named_parameters()
        if "norm" in name or name.endswith(("down_proj.bias", "o_proj.bias"))
    )
    sizes = sum(map(structures.layer_params, structures.layers))
    assert sizes + other == structures.block_params


@pytest.mark.parametrize("kind", KINDS)
def test_widths_are_those_of_each_layer(kind: str) -> None:
    stock = small_model(kind)
    dense = describe_model(stock).layers[0]
    groups, experts = stock.config.num_key_value_heads, getattr(stock.config, "num_experts", 0)
    assert dense == LayerWidths(48 * (experts or 1), 4, groups, experts)
    layers = describe_model(per_layer_model(stock, WIDTHS)).layers
    assert [layer.mlp_width for layer in layers] == [40, 24, 48, 48]
    fewer = {"qwen3-moe": [2, 3, 4, 4], "qwen3-moe-mixed": [2, 0, 4, 4]}
    assert [layer.experts for layer in layers] == fewer.get(kind, [0] * 4)
    assert [layer.query_heads for layer in layers] == [4, 2, 3, 1]
    assert [layer.kv_groups for layer in layers] == [dense.kv_groups, 1, 1, 1]


def test_only_models_that_share_kv_groups_are_grouped_query() -> None:
    assert describe_model(small_model("llama")).grouped_query
    assert not describe_model(small_model("llama-mha")).grouped_query


def test_kv_groups_of_unequal_size_are_refused() -> None:
    model = small_model("llama")
    model.config.num_key_value_heads = 3
    with pytest.raises(UserError, match="layer 0 has 4 query heads in 3 KV groups"):
        describe_model(model)


FUSED = ("phi3", "phi3-long", "glm", "glm4")
EXPERTS = ("qwen3-moe", "qwen3-moe-mixed")


@pytest.mark.parametrize("kind", FUSED)
def test_fused_projections_are_views_of_consecutive_rows(kind: str) -> None:
    model = small_model(kind)
    for modules, layer in zip(layer_modules(model), model.model.layers, strict=True):
        fused = layer.mlp.gate_up_proj.weight
        assert torch.equal(torch.cat([modules.gate.weight, modules.up.weight]), fused)
        assert modules.gate.weight.data_ptr() == fused.data_ptr()
        if "phi3" in kind:
            parts = [modules.query.weight, modules.key.weight, modules.value.weight]
            assert torch.equal(torch.cat(parts), layer.self_attn.qkv_proj.weight)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in FUSED + EXPERTS])
def test_modules_of_a_layer_are_its_projections(kind: str) -> None:
    model = small_model(kind)
    for modules, layer in zip(layer_modules(model), model.model.layers, strict=True):
        assert modules.down is layer.mlp.down_proj
        assert modules.attention is layer.self_attn
        assert list(modules.projections.values()) == [
            layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj, layer.self_attn.q_proj,
            layer.self_attn.k_proj, layer.self_attn.v_proj, layer.self_attn.o_proj,
        ]  # fmt: skip
