"""A recipe: what scores the structures, how wide the layers stay, and what updates the weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapruner.config.search import Fusion

MIX = "mix"
"""The metric of a searched recipe: a weighted sum of metrics."""

ALIGNMENT = {"fisher": (1e5, 1e6, 1e7), "coarse": (1e-2, 1e-3), "magnitude": (1e-4,)}
"""The paper's alignment factors, which bring the metrics to one order of magnitude. Its three sets
are read here as belonging to the second-order, the vector-wise and the element-wise term: the
smallest statistic has the largest factors."""


def default_align(fusion: Fusion) -> dict[str, float]:
    """The first of each set of factors for `aligned`; none for another fusion."""
    is_aligned = fusion == "aligned"
    return {name: factors[0] for name, factors in ALIGNMENT.items()} if is_aligned else {}


class Recipe(BaseModel):
    """How structures are scored, and which widths are planned from the scores.

    `metric: mix` is alpha_coarse * coarse + (1 - alpha_coarse) * (alpha_fine * magnitude +
    (1 - alpha_fine) * second), where second = alpha_token * token + (1 - alpha_token) * fisher.
    Each is summed over `samples` and brought to one scale by `fusion`, see `importance.fusion`;
    `align` are the factors of `aligned`. (0, 0, 0) is Fisher, (1, _, _)
    vector-wise, (0, 1, _) element-wise importance, (0, 0, 1) the Fisher information of masks. With
    `shares`, one for each domain of the pool, the samples of a domain have its share as their total
    weight. Any other metric is one of `metrics.METRICS`; `seed` is used by the random one.

    `update_shares` and `ridge` are those of the plan's update, see `pruning.plan.Update`.

    `width_profile` interpolates the layers' widths between equal widths (0) and the widths of the
    lowest sum of sensitivities (1), see `pruning.allocation.width_profile`. `protect` is the number
    of first and last layers left unpruned, where it differs from pruning.protect_first and _last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = MIX
    samples: tuple[int, ...]
    seed: int = 0
    alpha_coarse: float = Field(0.0, ge=0, le=1)
    alpha_fine: float = Field(0.0, ge=0, le=1)
    alpha_token: float = Field(0.0, ge=0, le=1)
    shares: tuple[Annotated[float, Field(ge=0)], ...] = ()
    fusion: Fusion = "layer_mean"
    align: dict[Literal["coarse", "magnitude", "fisher"], float] = Field(default_factory=dict)
    width_profile: float = Field(0.0, ge=0, le=1)
    protect: tuple[int, int] | None = None
    update_shares: tuple[Annotated[float, Field(ge=0)], ...] = ()
    ridge: float | None = Field(None, gt=0)
