"""`model.family: auto`: the row of a decoder that is not in the table, from its config alone.

The parts are found by name and shape in the model that Transformers builds, without weights. What
is found is a guess until `pruning.proof` has cut a model by it.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.errors import UserError, first_line
from adapruner.models.families import Family

LAYERS = "model.layers"

_NAMES = {
    ("query", "key", "value"): r"qkv_proj|wqkv|W_pack|query_key_value",
    ("gate", "up"): r"gate_up_proj|w13",
    ("query",): r"q_proj|wq|query",
    ("key",): r"k_proj|wk|key",
    ("value",): r"v_proj|wv|value",
    ("output",): r"o_proj|wo|out_proj",
    ("gate",): r"gate_proj|w1",
    ("up",): r"up_proj|w3",
    ("down",): r"down_proj|w2",
}
"""Projections -> the last part of the name of the linear layer that holds them."""


def find_family(config: Any) -> Family:
    """The row of a family for a stock config. Raises UserError that says what was not found."""
    name = (config.architectures or [config.model_type])[0]
    try:
        build: Any = AutoModelForCausalLM.from_config
        with torch.device("meta"):
            model = build(config, trust_remote_code=False)
        layers = list(model.get_submodule(LAYERS).children())
        widths = _widths(config)
    except Exception as error:  # Transformers reports a config that it can't build by any type
        raise _refusal(name, first_line(error)) from None
    shapes = [{n: tuple(p.shape) for n, p in layer.named_parameters()} for layer in layers]
    if any(shape != shapes[0] for shape in shapes):
        raise _refusal(name, "its layers do not all have the same parts")
    if type(layers[0]).__name__ != type(model).__name__.replace("ForCausalLM", "DecoderLayer"):
        raise _refusal(name, f"its layers are of an unexpected class, {type(layers[0]).__name__}")
    paths = _paths(name, layers[0], widths)
    attention, mlp = (paths[part].rpartition(".")[0] for part in ("output", "down"))
    if attention != "self_attn":
        raise _refusal(name, f"its attention is '{attention}', expected 'self_attn'")
    inner = {n: s for n, s in shapes[0].items() if n.startswith(attention + ".")}
    linear = tuple(f"{path}." for path in paths.values())
    spans_heads = any(s == (widths["query"],) for n, s in inner.items() if not n.startswith(linear))
    return Family(
        config.model_type,
        type(model).__name__,
        heads_divide_hidden=_heads_divide_hidden(config),
        couples_heads=spans_heads,
        attention=attention,
        mlp=mlp,
        **paths,
    )


def _widths(config: Any) -> dict[str, int]:
    """Projection -> its rows; of output and down: its columns. Raises for absent fields."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    rows = {"query": heads * head_dim, "output": heads * head_dim}
    rows |= dict.fromkeys(("key", "value"), groups * head_dim)
    return rows | dict.fromkeys(("gate", "up", "down"), config.intermediate_size)


def _paths(name: str, layer: nn.Module, widths: dict[str, int]) -> dict[str, Any]:
    """Projection -> module. Every linear layer must be one, and every projection be found once."""
    paths: dict[str, Any] = {}
    for path, linear in layer.named_modules():
        if not isinstance(linear, nn.Linear):
            continue
        last = path.rpartition(".")[2]
        parts = next((p for p, pattern in _NAMES.items() if re.fullmatch(pattern, last)), ())
        size = linear.in_features if parts in (("output",), ("down",)) else linear.out_features
        if not parts or size != sum(widths[p] for p in parts) or set(parts) & set(paths):
            shape = f"[{linear.out_features}, {linear.in_features}]"
            raise _refusal(name, f"its linear layer '{path}' {shape} is no expected projection")
        paths |= dict.fromkeys(parts, path)
    absent = [part for part in widths if part not in paths]
    if absent:
        raise _refusal(name, f"it has no linear layer for {', '.join(absent)}")
    return paths


def _heads_divide_hidden(config: Any) -> bool:
    """Whether the config class refuses a number of heads that does not divide the hidden size."""
    count = next(n for n in range(2, config.hidden_size + 2) if config.hidden_size % n)
    heads = {"num_attention_heads": count, "num_key_value_heads": count}
    fields = config.to_dict() | heads | {"head_dim": _widths(config)["query"]}
    fields["head_dim"] //= config.num_attention_heads
    try:
        AutoConfig.for_model(**fields)
    except Exception:  # a refusal is the answer, of whatever type
        return True
    return False


def _refusal(name: str, why: str) -> UserError:
    return UserError(f"model.family auto can't compress {name}: {why}; choose a supported model")
