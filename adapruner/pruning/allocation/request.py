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
    measured; `width_profile` in [0, 1] is how far the widths follow it. `fluctuation`, float64 [n],
    is the layers' importance fluctuation where it decides the widths, and None elsewhere;
    `keep_unstable` says that layers with more of it lose less.
    """

    scores: list[Tensor]
    comparable: bool
    channels: float
    sensitivity: Tensor | None
    width_profile: float
    fluctuation: Tensor | None = None
    keep_unstable: bool = False

    @property
    def sizes(self) -> list[int]:
        """Channels of each layer."""
        return [len(scores) for scores in self.scores]
