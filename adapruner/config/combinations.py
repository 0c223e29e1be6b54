"""Settings of different sections that need one another."""

from __future__ import annotations

from typing import Any

from adapruner.config.model import ModelConfig
from adapruner.config.pruning import SEMI_STRUCTURED, PruningConfig, ReconstructionConfig
from adapruner.config.recovery import LORA, FinetuneConfig
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


def check_processes(model: ModelConfig, finetune: FinetuneConfig) -> None:
    """Raises ValueError for training that several processes can't do as one does."""
    if model.processes == 1 or finetune.method != LORA:
        return
    if finetune.dropout:
        raise ValueError(
            f"model.processes {model.processes} needs finetune.dropout 0, got {finetune.dropout:g}:"
            " processes draw other dropout than one does; set it to 0, or processes to 1"
        )
    if finetune.batch_size < model.processes:
        raise ValueError(
            f"model.processes {model.processes} needs finetune.batch_size {model.processes} or "
            f"more, got {finetune.batch_size}: each process trains on a part of every batch"
        )
