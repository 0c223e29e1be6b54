"""How a plan is made: one module per planner.

The module of a planner has one function, `search(inputs: SearchInputs, config: PlanConfig, storage:
str, out: Path) -> None`. It writes a plan and how it was found to `out`, see
`adapruner.search.results`.
"""

from __future__ import annotations

PLANNERS = {
    "importance": "adapruner.search.search",
    "semi_structured": "adapruner.search.semi_structured",
    "gates": "adapruner.search.gates.search",
}
"""Name of `search.planner` -> its module."""
