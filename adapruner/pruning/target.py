"""The pruning target: a model's structures and the pruning settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from adapruner.config import PruningConfig
from adapruner.config.targets import TARGETS
from adapruner.models.structures import Structures

Attention = Literal["none", "kv_groups", "query_heads"]


@dataclass(frozen=True)
class PruningTarget:
    """The coupled structures of a model and how much of them is removed."""

    structures: Structures
    pruning: PruningConfig

    @cached_property
    def protected(self) -> tuple[int, ...]:
        """Layers that are left unpruned; none in the uniform layout, where all share one width."""
        depth, pruning = len(self.structures.layers), self.pruning
        if pruning.layout == "uniform":
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
        too much with every group, and where the runtime takes equal head counts alone."""
        pruning = self.pruning
        if pruning.attention != "auto":
            return pruning.attention
        equal = pruning.layout == "per_layer" and not TARGETS[pruning.target].heads_by_layer
        return "none" if equal or self.structures.grouped_query else "kv_groups"

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

    def with_protection(self, first: int, last: int) -> PruningTarget:
        """The same target with other numbers of protected layers."""
        ends = {"protect_first": first, "protect_last": last}
        return PruningTarget(self.structures, self.pruning.model_copy(update=ends))

    def __str__(self) -> str:
        return f"pruning.ratio {self.pruning.ratio:g} of {self.pruning.ratio_of}"
