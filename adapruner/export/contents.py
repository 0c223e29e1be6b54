"""What an export needs to know of a checkpoint before it reads any weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapruner.errors import UserError
from adapruner.models.storage.checkpoint import inspect, read_config
from adapruner.models.structures import LayerWidths, Structures

FULL = "full_attention"
"""The type of the layers that attend to everything."""


@dataclass(frozen=True)
class Contents:
    """A checkpoint, its Transformers config, its structures, and whether its layers differ.

    `layers_differ`: in any width; `heads_differ`: in head counts. `attention_is_square`: the query
    heads together are as wide as the hidden size, in every layer. `groups` is the file of its
    projections in 4 bit, if it was trained so.
    """

    checkpoint: Path
    config: Any
    structures: Structures
    layers_differ: bool
    heads_differ: bool
    attention_is_square: bool
    groups: Path | None = None

    @property
    def layers(self) -> tuple[LayerWidths, ...]:
        """The widths of each decoder layer."""
        return self.structures.layers

    @property
    def context_length(self) -> int:
        """Tokens for which full attention is exact: a sliding window ends it."""
        window = getattr(self.config, "sliding_window", None)
        positions: int = self.config.max_position_embeddings
        return min(positions, window or positions)

    @property
    def activation(self) -> str:
        """The activation of the MLPs; the field's name depends on the family."""
        name = getattr(self.config, "hidden_activation", None) or self.config.hidden_act
        return str(name)

    @property
    def layer_types(self) -> list[str]:
        """`full_attention` or `sliding_attention`, by layer."""
        types = getattr(self.config, "layer_types", None)
        return list(types or [FULL] * len(self.layers))

    def rope(self, layer_type: str = FULL) -> Mapping[str, Any]:
        """The settings of the rotary embedding; of layers of a type, where a family has several."""
        parameters: Mapping[str, Any] = self.config.rope_parameters
        return parameters.get(layer_type, parameters)  # type: ignore[no-any-return]

    def rope_theta(self, layer_type: str = FULL) -> float:
        """The base of the rotary frequencies."""
        return float(self.rope(layer_type)["rope_theta"])

    def rope_type(self, layer_type: str = FULL) -> str:
        """How the rotary frequencies are scaled: `default`, `linear`, `llama3` and so on."""
        return str(self.rope(layer_type).get("rope_type", "default"))

    @property
    def rotary_dimensions(self) -> int:
        """Rows of each head that the rotary embedding rotates."""
        return int(self.structures.head_dim * self.rope().get("partial_rotary_factor", 1.0))


def contents_of(checkpoint: Path, groups: Path | None = None) -> Contents:
    """The contents of a checkpoint, with the file of its groups.

    Raises UserError for one that can't be loaded.
    """
    structures = inspect(checkpoint)
    if structures.residual:
        raise UserError(
            f"'{checkpoint}' has blocks that read and write subsets of the residual stream, which "
            "Transformers alone runs; prune with pruning.layout: per_layer"
        )
    heads = {(layer.query_heads, layer.kv_groups) for layer in structures.layers}
    return Contents(
        checkpoint,
        read_config(checkpoint),
        structures,
        layers_differ=len(set(structures.layers)) > 1,
        heads_differ=len(heads) > 1,
        attention_is_square=all(
            query_heads * structures.head_dim == structures.hidden_size for query_heads, _ in heads
        ),
        groups=groups,
    )


def refuse_layers(runtime: str, contents: Contents, why: str) -> UserError:
    """The error for layers that differ where `runtime` has one width for all."""
    return UserError(
        f"{runtime} can't hold {contents.structures.family.architecture} with layers that differ: "
        f"{why}; prune with pruning.layout: uniform"
    )
