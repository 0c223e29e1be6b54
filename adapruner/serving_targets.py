"""What the runtimes that serve the result take: widths, layouts, formats."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServingTarget:
    """A runtime, or a set of them.

    `multiple` is the one of MLP widths that costs neither speed nor size, for the reason `why`;
    `formats` are the exports that must hold the result; `heads_by_layer` says whether head counts
    may differ by layer.
    """

    multiple: int
    why: str
    formats: tuple[str, ...] = ()
    heads_by_layer: bool = True


PORTABLE_MULTIPLE = 256
"""DeciLM rounds the widths that `ffn_mult` stands for up to a multiple of this."""

TARGETS = {
    "transformers": ServingTarget(8, "matrix instructions of GPUs take 8 numbers at a time"),
    "vllm": ServingTarget(64, "tensor parallelism divides widths among devices"),
    "llama.cpp": ServingTarget(
        32,
        "rows of quantized tensors are multiples of 32, others stay f16",
        formats=("gguf",),
    ),
    "portable": ServingTarget(
        PORTABLE_MULTIPLE,
        f"DeciLM in SGLang and MLX has multiples of {PORTABLE_MULTIPLE}",
        formats=("gguf", "decilm"),
        heads_by_layer=False,
    ),
}
"""Name of `pruning.target` -> what it takes."""
