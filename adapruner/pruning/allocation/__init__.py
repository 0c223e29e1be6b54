"""How the removal is distributed over the layers: one module per rule.

A rule has two functions of an `AllocationRequest`: `applies(request)`, whether it is used, and
`removal_weights(request)`, float64 [n]: the share of its channels that each prunable layer loses,
up to a common factor. `allocate` uses the first rule of the table that applies.
"""

RULES = (
    "adapruner.pruning.allocation.fluctuation",
    "adapruner.pruning.allocation.global_ranking",
    "adapruner.pruning.allocation.width_profile",
    "adapruner.pruning.allocation.equal",
)
"""Modules, the most specific rule first."""
