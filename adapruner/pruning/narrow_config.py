"""The config of a cut model."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from adapruner.models.modeling import RESIDUAL_WIDTHS
from adapruner.models.storage.checkpoint import auto_map
from adapruner.models.structures import LayerWidths, Structures
from adapruner.pruning.plan import PruningPlan, kept_widths


def narrow_config(config: Any, structures: Structures, plan: PruningPlan) -> Any:
    """The config of the cut model.

    `per_layer_config` holds what differs from the first layer. The model type is the family's own
    where head counts differ by layer or do not suit the stock config, and where the layers have
    subsets of the residual stream, else the stock one. Where the layers differ, `auto_map` names
    the model classes, so config and tokenizer load without code.
    """
    family = structures.family
    widths = [kept_widths(d, p) for d, p in zip(structures.layers, plan.layers, strict=True)]
    by_layer = {index: _config_fields(layer_widths) for index, layer_widths in enumerate(widths)}
    shared = {name: value for own in reversed(by_layer.values()) for name, value in own.items()}
    stored = {config.attribute_map.get(name, name): value for name, value in shared.items()}
    fields = config.to_dict() | stored | {"head_dim": structures.head_dim}
    if plan.has_subsets:
        fields[RESIDUAL_WIDTHS] = [
            [len(subset) for subset in layer.residual.subsets.values()]
            for layer in plan.layers
            if layer.residual is not None
        ]
    for replaced in ("per_layer_config", "auto_map", "architectures", "model_type"):
        fields.pop(replaced, None)
    is_stock = widths[0].query_heads in structures.stock_head_counts and not plan.has_subsets
    equal_heads = len({(w.query_heads, w.kv_groups) for w in widths}) == 1 and is_stock
    model_type = family.model_type if equal_heads else family.per_layer_type
    if all(own.items() <= shared.items() for own in by_layer.values()) and is_stock:
        narrow = AutoConfig.for_model(model_type, **fields)
        narrow.architectures = [family.architecture]
    else:
        narrow = AutoConfig.for_model(model_type, per_layer_config=by_layer, **fields)
        narrow.architectures = [family.per_layer_architecture]
        narrow.auto_map = auto_map(family, equal_heads)
    for implementation in ("_attn_implementation", "_experts_implementation"):
        setattr(narrow, implementation, getattr(config, implementation))
    return narrow


def _config_fields(widths: LayerWidths) -> dict[str, int]:
    """The fields of a layer's config; a layer of experts does not use the MLP's, and vice versa."""
    experts = {"num_experts": widths.experts, "moe_intermediate_size": widths.mlp_width}
    return {
        "num_attention_heads": widths.query_heads,
        "num_key_value_heads": widths.kv_groups,
        **(experts if widths.experts else {"intermediate_size": widths.mlp_channels}),
    }
