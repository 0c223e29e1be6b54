"""The architectures of GGUF that hold the model families: one row each.

As in the llama.cpp of llama-cpp-python 0.3.36: `llama` and the families' other architectures build
every layer with the widths of layer 0; `deci` reads those of each layer. `deci` has no norms of
queries and keys, and one activation (SiLU).
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
    per_layer: str | None
    activation: str = "silu"
    norm_offset: float = 0.0


ARCHITECTURES = {
    "llama": Architecture("llama", "deci"),
    "mistral": Architecture("llama", "deci"),
    "qwen2": Architecture("qwen2", "deci"),
    "qwen3": Architecture("qwen3", None),
    "gemma": Architecture("gemma", None, "gelu_pytorch_tanh", norm_offset=1.0),
}
"""Family -> architecture of GGUF."""

NEIGHBOURING_PAIRS = frozenset({"llama", "deci"})
"""Architectures whose rotary embedding rotates rows 2i and 2i + 1 of a head together.

The others, and Transformers, rotate rows i and i + head_dim / 2.
"""

SQUARE_ATTENTION = frozenset({"qwen2"})
"""Architectures that read the query projection as [hidden, hidden], so all heads must be there."""

FREQUENCY_FACTORS = frozenset({"llama", "deci"})
"""Architectures that read a factor for each rotary frequency (`rope_freqs`)."""
