"""The architectures of GGUF that hold the model families: one row each.

As in the llama.cpp of llama-cpp-python 0.3.36: `llama` and the families' other architectures build
every layer with the widths of layer 0; `deci` reads those of each layer. `deci` has no norms of
queries and keys, none behind attention and MLP, and one activation (SiLU).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """How GGUF holds a family.

    `equal` is the architecture for layers of one width, `per_layer` that for layers that differ, or
    None. `norm_offset` is added to the weights of all norms.
    """

    equal: str
    per_layer: str | None = None
    activation: str = "silu"
    norm_offset: float = 0.0


_GELU = "gelu_pytorch_tanh"

ARCHITECTURES = {
    "llama": Architecture("llama", "deci"),
    "mistral": Architecture("llama", "deci"),
    "qwen2": Architecture("qwen2", "deci"),
    "qwen3": Architecture("qwen3"),
    "gemma": Architecture("gemma", activation=_GELU, norm_offset=1.0),
    "gemma2": Architecture("gemma2", activation=_GELU, norm_offset=1.0),
    "gemma3_text": Architecture("gemma3", activation=_GELU, norm_offset=1.0),
    "olmo2": Architecture("olmo2"),
    "olmo3": Architecture("olmo2"),
    "granite": Architecture("granite", "deci"),
    "smollm3": Architecture("smollm3"),
    "phi3": Architecture("phi3", "deci"),
    "glm": Architecture("chatglm"),
    "glm4": Architecture("glm4"),
}
"""Family -> architecture of GGUF."""

NEIGHBOURING_PAIRS = frozenset({"llama", "deci", "granite", "smollm3"})
"""Architectures whose rotary embedding rotates rows 2i and 2i + 1 of a head together, where
Transformers rotates rows i and i + head_dim / 2. The others rotate as Transformers does.
"""

SQUARE_ATTENTION = frozenset({"qwen2", "olmo2", "phi3", "chatglm"})
"""Architectures that read a query or output projection as [hidden, hidden], so all heads must be
there.
"""

FUSED_PROJECTIONS = frozenset({"phi3", "chatglm", "glm4"})
"""Architectures that may fuse query, key and value, and do fuse gate and up."""

PARTIAL_ROTATION = frozenset({"phi3", "chatglm", "glm4"})
"""Architectures that may rotate a part of each head."""

WINDOWS = frozenset({"gemma2", "gemma3", "olmo2"})
"""Architectures that have sliding windows; the others attend to everything."""

ALL_BIASES = frozenset({"llama", "deci", "granite"})
"""Architectures that read biases of all projections; the others those of query, key and value."""

FREQUENCY_FACTORS = frozenset({"llama", "deci", "granite"})
"""Architectures that read a factor for each rotary frequency (`rope_freqs`)."""

SCALINGS = {
    **dict.fromkeys(FREQUENCY_FACTORS, ("linear", "llama3")),
    "gemma3": ("linear",),
    "deci": ("linear", "llama3", "longrope"),
    "phi3": ("longrope",),
}
"""Architecture -> how it may scale rotary frequencies."""
