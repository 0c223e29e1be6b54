"""How much is removed, and how the remaining weights are updated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adapruner.config.base import Section
from adapruner.config.choices import RECONSTRUCTION, OneOf

Layout = Literal["per_layer", "uniform"]
RatioBase = Literal["all", "blocks"]
ReconstructionMethod = Annotated[str, OneOf(RECONSTRUCTION)]


class PruningConfig(Section):
    """How much is removed, which structures, and in which layout."""

    ratio: float = Field(0.2, gt=0, lt=1, description="share of the parameters to remove")
    ratio_of: RatioBase = Field(
        "all", description="what the ratio is a share of: all parameters or the decoder blocks'"
    )
    layout: Layout = Field(
        "per_layer",
        description="per_layer: each layer has a width of its own; uniform: one width for all",
    )
    protect_first: int = Field(4, ge=0, description="per_layer only: first layers left unpruned")
    protect_last: int = Field(2, ge=0, description="per_layer only: last layers left unpruned")
    round_to: int = Field(8, ge=1, description="MLP widths are multiples of this")
    attention: Literal["auto", "none", "kv_groups", "query_heads"] = Field(
        "auto",
        description="attention structures to remove; auto: kv_groups for multi-head models, none "
        "for grouped-query models",
    )


class ReconstructionConfig(Section):
    """How the remaining weights are updated after the cut."""

    method: ReconstructionMethod = Field(
        "least_squares",
        description="least_squares: update the weights of cut MLPs; bias: add biases to the output "
        "projections (Llama only); none",
    )
    ridge: float | None = Field(
        None,
        gt=0,
        description="regularization towards the old weights, 1 is strong; default: chosen for each "
        "layer on the objective text",
    )
    epochs: int = Field(
        2,
        ge=0,
        description="least_squares only: passes over the update samples that fit all weights of "
        "each cut MLP to the output of the whole one, after the update of its output projection in "
        "closed form; 0: that update alone, as in the trials",
    )
