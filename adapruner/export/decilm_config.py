"""The config of a DeciLM checkpoint: a Llama whose blocks have widths of their own.

A copy of this file is part of every DeciLM export, which runtimes load with `trust_remote_code`, so
it imports nothing but Transformers.
"""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig


class Block(dict):  # type: ignore[type-arg]
    """A part of a block's config: a mapping whose keys are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class DeciLMConfig(LlamaConfig):  # type: ignore[no-untyped-call]
    """`block_configs` has, for each layer, the parts `attention` and `ffn`."""

    model_type = "nemotron-nas"

    def validate_architecture(self) -> None:
        """Checks nothing: `head_dim` is always set, so no width derives from a head count."""

    def __init__(self, block_configs: Any = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.block_configs = [
            Block({name: Block(part) for name, part in block.items()}) for block in block_configs
        ]
