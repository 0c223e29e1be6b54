"""From the importance table to one score a structure: which samples, which metrics, how mixed.

A trial of the search is a `Recipe`. Scoring one adds rows of the table; no model is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from adapruner.importance import ImportanceTable

ALIGNMENT = {"fisher": (1e5, 1e6, 1e7), "coarse": (1e-2, 1e-3), "magnitude": (1e-4,)}
"""The paper's alignment factors, which bring the metrics to one order of magnitude. Its three sets
are read here as belonging to the second-order, the vector-wise and the element-wise term: the
smallest statistic has the largest factors."""


class Recipe(BaseModel):
    """How one trial scores structures.

    `metric: mix` is alpha_coarse * coarse + (1 - alpha_coarse) * (alpha_fine * magnitude +
    (1 - alpha_fine) * fisher), each summed over `samples` and brought to one scale: divided by its
    mean over the layer (`align` empty), or multiplied by the factors of `align`. (0, 0) is
    Fisher, (1, _) vector-wise, (0, 1) element-wise importance.

    `vector` and `element` are LLM-Pruner's scores (arXiv 2305.11627, section 3.2) on the table's
    reference subset: sums over the coupled projections of |sum w g| and of sum |w g|. There the
    two equal vector parts of up and down both count, as in that work.

    `width_exponent` shapes the widths over the layers, see `allocation`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Literal["mix", "vector", "element"] = "mix"
    samples: tuple[int, ...]
    alpha_coarse: float = Field(0.0, ge=0, le=1)
    alpha_fine: float = Field(0.0, ge=0, le=1)
    align: dict[Literal["coarse", "magnitude", "fisher"], float] = Field(default_factory=dict)
    width_exponent: float = 0.0


@dataclass(frozen=True)
class Scores:
    """Scores by layer, higher is more important: channels [C], query heads [H], KV groups [G].

    A head's score is of its own rows and columns; a group's is of its key and value alone.
    `sensitivity` [L] is each layer's mean Fisher importance over the whole pool.
    """

    mlp: list[Tensor]
    heads: list[Tensor]
    groups: list[Tensor]
    sensitivity: Tensor


def score(table: ImportanceTable, recipe: Recipe) -> Scores:
    """The scores that `recipe` gives the structures of `table`."""
    parts = {
        kind: _METRICS[recipe.metric](table, recipe, kind) for kind in ("mlp", "heads", "groups")
    }
    return Scores(**parts, sensitivity=sensitivity(table))


def sensitivity(table: ImportanceTable) -> Tensor:
    """[L]: the mean over a layer's channels of Fisher importance, summed over the pool."""
    return torch.stack([layer.sum(0).mean() for layer in table.fisher["mlp"]])


def _mix(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    rows = torch.tensor(recipe.samples)
    weights = {
        "coarse": recipe.alpha_coarse,
        "magnitude": (1 - recipe.alpha_coarse) * recipe.alpha_fine,
        "fisher": (1 - recipe.alpha_coarse) * (1 - recipe.alpha_fine),
    }
    layers = []
    for index in range(len(table.fisher[kind])):
        total = torch.zeros(())
        for metric, weight in weights.items():
            if not weight:
                continue
            values = _summed(table, metric, kind, index, rows)
            scale = recipe.align.get(metric) if recipe.align else 1 / values.mean().clamp_min(1e-30)  # type: ignore[call-overload]
            total = total + weight * scale * values
        layers.append(total)
    return layers


def _summed(table: ImportanceTable, metric: str, kind: str, layer: int, rows: Tensor) -> Tensor:
    if metric == "coarse":
        return _coarse(table, kind, layer, rows, twice=False)
    statistic = table.magnitude if metric == "magnitude" else table.fisher
    return statistic[kind][layer][rows].sum(0)


def _coarse(table: ImportanceTable, kind: str, layer: int, rows: Tensor, *, twice: bool) -> Tensor:
    """|sum over samples| of the coupled projections, summed; equal parts once or `twice`."""

    def part(name: str) -> Tensor:
        return table.coarse[name][layer][rows].sum(0)

    if kind == "mlp":
        return part("gate").abs() + (2 if twice else 1) * part("down").abs()
    query, output = part("query"), part("output")
    if kind == "heads":
        return query.abs() + output.abs()
    if not twice:
        return torch.zeros(table.fisher["groups"][layer].shape[1])
    groups = table.fisher["groups"][layer].shape[1]
    return query.view(groups, -1).sum(1).abs() + output.view(groups, -1).sum(1).abs()


def _vector(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    rows = torch.tensor(recipe.samples)
    return [_coarse(table, kind, i, rows, twice=True) for i in range(len(table.fisher[kind]))]


def _element(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    if recipe.samples != table.reference:
        raise ValueError(
            f"the element-wise score is exact for the reference subset {table.reference} alone, "
            f"not for {recipe.samples}"
        )
    return table.element[kind]


_METRICS: dict[str, Callable[[ImportanceTable, Recipe, str], list[Tensor]]] = {
    "mix": _mix,
    "vector": _vector,
    "element": _element,
}
