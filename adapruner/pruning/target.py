"""The pruning target: a model's structures and the pruning settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.models.residual import check_residual
from adapruner.models.structures import Structures
from adapruner.serving_targets import TARGETS

Attention = Literal["none", "kv_groups", "query_heads"]

EXPERT_MULTIPLE = 8
"""Grouped matrix products take rows of multiples of 16 bytes, which are 8 numbers in bfloat16."""


@dataclass(frozen=True)
class PruningTarget:
    """The coupled structures of a model and how much of them is removed."""

    structures: Structures
    pruning: PruningConfig

    @cached_property
    def protected(self) -> tuple[int, ...]:
        """Layers that are left unpruned; none but in the layout per_layer."""
        depth, pruning = len(self.structures.layers), self.pruning
        if pruning.layout != "per_layer":
            return ()
        first, last = pruning.protect_first, depth - pruning.protect_last
        return tuple(i for i in range(depth) if i < first or i >= last)

    @cached_property
    def prunable(self) -> tuple[int, ...]:
        """Layers that are not protected."""
        return tuple(i for i in range(len(self.structures.layers)) if i not in self.protected)

    @cached_property
    def attention(self) -> Attention:
        """The attention structures to remove. `auto`: none for grouped-query models, which lose
        too much with every group, for coupled heads, and where the runtime takes equal head counts
        alone.

        Raises UserError where the family's heads can't be removed and the settings name some.
        """
        family, pruning = self.structures.family, self.pruning
        if self.has_subsets:
            return "none"  # whole heads; the blocks' inputs and outputs are cut
        if pruning.attention == "auto":
            equal = pruning.layout == "per_layer" and not TARGETS[pruning.target].heads_by_layer
            is_kept = equal or self.structures.grouped_query or family.couples_heads
            return "none" if is_kept else "kv_groups"
        if family.couples_heads and pruning.attention != "none":
            raise UserError(
                f"pruning.attention {pruning.attention}: {family.architecture} normalises the "
                "queries of all heads together, so none can be removed exactly; use none or auto"
            )
        return pruning.attention

    @cached_property
    def base(self) -> int:
        """Parameters that the ratio is a share of."""
        structures = self.structures
        of_all = self.pruning.ratio_of == "all"
        return structures.total_params if of_all else structures.block_params

    @cached_property
    def budget(self) -> int:
        """Parameters to remove."""
        return round(self.pruning.ratio * self.base)

    @cached_property
    def share(self) -> float:
        """The share of the structures of the prunable layers to remove."""
        structures = self.structures
        prunable = sum(structures.layer_params(structures.layers[i]) for i in self.prunable)
        return self.budget / prunable if prunable else 0.0

    @property
    def has_subsets(self) -> bool:
        """Whether each block has subsets of the residual stream of its own."""
        return self.pruning.layout == "residual_subsets"

    def check_layout(self) -> None:
        """Raises UserError for a layout that the model can't have, and for a model whose layers
        have residual subsets already."""
        if self.structures.residual:
            raise UserError(
                "the model's layers read and write subsets of the residual stream, so it can't be "
                "pruned again; prune the dense model"
            )
        if self.has_subsets:
            check_residual(self.structures)

    def check_experts(self) -> None:
        """Raises UserError where the settings name experts and the model has none, and for widths
        that experts can't have."""
        family, pruning = self.structures.family, self.pruning
        has_experts = self.structures.has_experts
        if pruning.experts == "whole" and not has_experts:
            raise UserError(
                f"pruning.experts whole: this {family.architecture} has no experts; use channels"
            )
        if has_experts and pruning.round_to % EXPERT_MULTIPLE:
            raise UserError(
                f"pruning.round_to {pruning.round_to}: Transformers runs experts whose widths are "
                f"multiples of {EXPERT_MULTIPLE}; use such a multiple"
            )

    def with_protection(self, first: int, last: int) -> PruningTarget:
        """The same target with other numbers of protected layers."""
        ends = {"protect_first": first, "protect_last": last}
        return PruningTarget(self.structures, self.pruning.model_copy(update=ends))

    def __str__(self) -> str:
        return f"pruning.ratio {self.pruning.ratio:g} of {self.pruning.ratio_of}"
