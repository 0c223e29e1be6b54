"""Settings of different sections that need one another."""

from __future__ import annotations

from typing import Any

from adapruner.config.pruning import SEMI_STRUCTURED, PruningConfig, ReconstructionConfig
from adapruner.config.recovery import FinetuneConfig
from adapruner.config.search import SearchConfig

_OF_SEMI_STRUCTURED: dict[str, tuple[str, ...]] = {
    "search.planner": (SEMI_STRUCTURED,),
    "search.metric": ("magnitude", "wanda"),
    "reconstruction.method": ("none",),
    "finetune.method": ("ast", "none"),
}
"""What the layout semi_structured needs of other sections."""

_NEED_SEMI_STRUCTURED = {"search.planner": SEMI_STRUCTURED, "finetune.method": "ast"}
"""Values that need the layout semi_structured."""


def check_combination(
    search: SearchConfig,
    pruning: PruningConfig,
    reconstruction: ReconstructionConfig,
    finetune: FinetuneConfig,
) -> None:
    """Raises ValueError for sections that do not suit the layout."""
    values: dict[str, Any] = {
        "search.planner": search.planner,
        "search.metric": search.metric,
        "reconstruction.method": reconstruction.method,
        "finetune.method": finetune.method,
    }
    if pruning.layout != SEMI_STRUCTURED:
        for name, value in _NEED_SEMI_STRUCTURED.items():
            if values[name] == value:
                raise ValueError(
                    f"{name} {value} needs pruning.layout: semi_structured, got {pruning.layout}"
                )
        return
    for name, allowed in _OF_SEMI_STRUCTURED.items():
        if values[name] not in allowed:
            raise ValueError(
                f"pruning.layout semi_structured needs {name}: {' or '.join(allowed)}, got "
                f"{values[name]}; `method: ast` sets it"
            )
