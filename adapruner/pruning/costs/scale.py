"""What a cost counts, as part of a plan."""

from __future__ import annotations

from typing import Literal

from adapruner.config.pruning import LatencyPhase
from adapruner.files import Record


class CostScale(Record):
    """What a cost that is not a number of parameters counts.

    `bytes` are those of weights and of a KV cache of `tokens` tokens in the data type
    `conditions`; `ns` are the time of a phase at `tokens` tokens on the hardware `conditions`.
    """

    unit: Literal["bytes", "ns"]
    tokens: int
    phase: LatencyPhase | None = None
    conditions: str


class TargetCost(CostScale):
    """The cost that the ratio is a share of, of the dense and, as planned, of the cut model."""

    dense: int
    pruned: int
