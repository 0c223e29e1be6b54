"""The input of an allocation rule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AllocationRequest:
    """`channels` MLP channels in all are to be removed from n prunable layers.

    `scores` holds the scores of each layer's channels, [C] per layer; `comparable` says that they
    can be ranked across layers. `sensitivity` is float64 [n, len(REMOVED)], the divergence in nats
    per token with that layer alone cut (see `pruning.sensitivity`), or None where it was not
    measured; `width_profile` in [0, 1] is how far the widths follow it.
    """

    scores: list[Tensor]
    comparable: bool
    channels: float
    sensitivity: Tensor | None
    width_profile: float

    @property
    def sizes(self) -> list[int]:
        """Channels of each layer."""
        return [len(scores) for scores in self.scores]
