"""What single architectures of GGUF have beside a Llama's keys, and which settings they fix.

As in the llama.cpp of llama-cpp-python 0.3.36, `src/models/`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from gguf import GGUFWriter, RopeScalingType
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from adapruner.export.architectures import PARTIAL_ROTATION, SCALINGS, WINDOWS
from adapruner.export.contents import Contents

Fixed = dict[str, tuple[object, object]]
"""Setting -> its value in the checkpoint, and the only one that the architecture has."""

_SLIDING = "sliding_attention"


def unsupported_setting(architecture: str, activation: str, contents: Contents) -> str | None:
    """The first setting of the checkpoint that the architecture does not have, as a clause."""
    fixed: Fixed = {"hidden_act": (contents.activation, activation)}
    if architecture not in PARTIAL_ROTATION:
        fixed["partial_rotary_factor"] = (contents.rope().get("partial_rotary_factor", 1.0), 1.0)
    if architecture in _FIXED:
        fixed |= _FIXED[architecture](contents)
    for name, (value, wanted) in fixed.items():
        if value != wanted:
            return f"the checkpoint's {name} is {value}; '{architecture}' of GGUF has {wanted}"
    allowed = {contents.rope_type(): SCALINGS.get(architecture, ())}
    if architecture in WINDOWS and _SLIDING in contents.layer_types:
        allowed[contents.rope_type(_SLIDING)] = ()
    for scaling, scalings in allowed.items():
        if scaling not in ("default", *scalings):
            return (
                f"the checkpoint scales its rotary frequencies by '{scaling}', which the export to "
                f"'{architecture}' of GGUF does not support"
            )
    return None


def add_fields(writer: GGUFWriter, contents: Contents) -> None:
    """Writes the keys that the architecture has beside those of a Llama."""
    window = getattr(contents.config, "sliding_window", None)
    if writer.arch in WINDOWS and window is not None:
        writer.add_sliding_window(window)
        writer.add_sliding_window_pattern([kind == _SLIDING for kind in contents.layer_types])
        writer.add_rope_freq_base_swa(contents.rope_theta(_SLIDING))
    if writer.arch in _ADDED:
        _ADDED[writer.arch](writer, contents)


def folded_multipliers(architecture: str, contents: Contents) -> dict[str, float]:
    """Part of GGUF -> what its tensors are multiplied by: Granite's multipliers, where the
    architecture has none.
    """
    config = contents.config
    if contents.structures.family.model_type != "granite" or architecture == "granite":
        return {}
    head_scale = contents.structures.head_dim**0.5  # which the attention divides by
    logits = config.logits_scaling * (config.embedding_multiplier if _is_tied(contents) else 1.0)
    return {
        "token_embd": config.embedding_multiplier,
        "attn_q": config.attention_multiplier * head_scale,
        "attn_output": config.residual_multiplier,
        "ffn_down": config.residual_multiplier,
        "output_norm": 1.0 / logits,
    }


def _add_multipliers(writer: GGUFWriter, contents: Contents) -> None:
    config = contents.config
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def _add_soft_caps(writer: GGUFWriter, contents: Contents) -> None:
    config = contents.config
    if config.attn_logit_softcapping:
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _add_gemma3(writer: GGUFWriter, contents: Contents) -> None:
    _add_soft_caps(writer, contents)
    if contents.rope_type() == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(contents.rope()["factor"])


def _add_long_rope(writer: GGUFWriter, contents: Contents) -> None:
    if contents.rope_type() == "longrope":
        scale = ROPE_INIT_FUNCTIONS["longrope"](contents.config, torch.device("cpu"))[1]
        writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(contents.rope()["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(scale)


_ADDED: dict[str, Callable[[GGUFWriter, Contents], None]] = {
    "deci": _add_long_rope,
    "granite": _add_multipliers,
    "gemma2": _add_soft_caps,
    "gemma3": _add_gemma3,
    "phi3": _add_long_rope,
}
"""Architecture -> its further keys."""


def _fixed_by_gemma2(contents: Contents) -> Fixed:
    config = contents.config
    return {
        **_tied(contents),
        "query_pre_attn_scalar": _attention_scalar(contents, largest_depth=46),
        "attn_logit_softcapping": (
            config.attn_logit_softcapping,
            config.attn_logit_softcapping or 50.0,
        ),
        "final_logit_softcapping": (
            config.final_logit_softcapping,
            config.final_logit_softcapping or 30.0,
        ),
    }


def _fixed_by_gemma3(contents: Contents) -> Fixed:
    return {
        "query_pre_attn_scalar": _attention_scalar(contents, largest_depth=62),
        "attn_logit_softcapping": (contents.config.attn_logit_softcapping, None),
        "use_bidirectional_attention": (bool(contents.config.use_bidirectional_attention), False),
    }


def _attention_scalar(contents: Contents, largest_depth: int) -> tuple[object, object]:
    """The head size; in the largest model, by its number of layers, hidden size / heads."""
    structures = contents.structures
    heads, depth = contents.layers[0].query_heads, len(contents.layers)
    wanted = structures.hidden_size // heads if depth == largest_depth else structures.head_dim
    return contents.config.query_pre_attn_scalar, wanted


def _fixed_by_olmo2(contents: Contents) -> Fixed:
    bases = (contents.rope_theta(_SLIDING), contents.rope_theta())
    return {"tie_word_embeddings": (_is_tied(contents), False), "rope_theta of windows": bases}


def _fixed_by_smollm3(contents: Contents) -> Fixed:
    pattern = [int((layer + 1) % 4 != 0) for layer in range(len(contents.layers))]
    return {"no_rope_layers": (list(contents.config.no_rope_layers), pattern)}


def _tied(contents: Contents) -> Fixed:
    return {"tie_word_embeddings": (_is_tied(contents), True)}


def _is_tied(contents: Contents) -> bool:
    return bool(contents.config.tie_word_embeddings)


_FIXED: dict[str, Callable[[Contents], Fixed]] = {
    "gemma": _tied,
    "gemma2": _fixed_by_gemma2,
    "gemma3": _fixed_by_gemma3,
    "olmo2": _fixed_by_olmo2,
    "smollm3": _fixed_by_smollm3,
}
"""Architecture -> what it fixes."""
