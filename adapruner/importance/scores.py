"""From the importance table and a recipe to one score per structure. No model is run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapruner.importance.metrics import METRICS, coarse
from adapruner.importance.recipe import MIX, Recipe
from adapruner.importance.table import KINDS, ImportanceTable


@dataclass(frozen=True)
class Scores:
    """Scores by layer, higher is more important: channels [C], query heads [H], KV groups [G].

    A head's score is of its own rows and columns; a group's is of its key and value alone.
    `comparable`: channels of different layers can be ranked together.
    """

    mlp: list[Tensor]
    heads: list[Tensor]
    groups: list[Tensor]
    comparable: bool = False


def score(table: ImportanceTable, recipe: Recipe) -> Scores:
    """The scores that `recipe` assigns to the structures of `table`."""
    if recipe.metric == MIX:
        mlp, heads, groups = (_mix(table, recipe, kind) for kind in KINDS)
        return Scores(mlp, heads, groups)
    metric = METRICS[recipe.metric]
    mlp, heads, groups = (metric.function(table, recipe, kind) for kind in KINDS)
    return Scores(mlp, heads, groups, metric.needs.comparable)


def _mix(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """The weighted sum of metrics of a searched recipe, see `Recipe`."""
    second = (1 - recipe.alpha_coarse) * (1 - recipe.alpha_fine)
    shares = {
        "coarse": recipe.alpha_coarse,
        "magnitude": (1 - recipe.alpha_coarse) * recipe.alpha_fine,
        "fisher": second * (1 - recipe.alpha_token),
        "token": second * recipe.alpha_token,
    }
    weights = _sample_weights(table, recipe)
    layers = []
    for index in range(len(table.fisher[kind])):
        total = torch.zeros(())
        for metric, share in shares.items():
            if share:
                values = _summed(table, metric, kind, index, list(recipe.samples), weights)
                total = total + share * _scale(recipe, metric, values) * values
        layers.append(total)
    return layers


def _scale(recipe: Recipe, metric: str, values: Tensor) -> Tensor | float:
    if not recipe.align:
        return 1 / values.mean().clamp_min(1e-30)
    return recipe.align[metric]  # type: ignore[index]


def _sample_weights(table: ImportanceTable, recipe: Recipe) -> Tensor:
    """[N, 1]: the weight of each of the recipe's samples."""
    domains = [table.domain[n] for n in recipe.samples]
    weights = [recipe.shares[d] / domains.count(d) if recipe.shares else 1.0 for d in domains]
    return torch.tensor(weights).unsqueeze(1)


def _summed(
    table: ImportanceTable, metric: str, kind: str, layer: int, rows: list[int], weights: Tensor
) -> Tensor:
    """[units]: one metric, summed over the samples `rows` with their `weights`."""
    if metric == "coarse":
        return coarse(table, kind, layer, rows, weights, count_twice=False)
    if metric == "token":
        part = {"mlp": "down", "heads": "output"}.get(kind)
        statistic = (
            table.token[part][layer] if part else torch.zeros_like(table.fisher[kind][layer])
        )
    else:
        statistic = getattr(table, metric)[kind][layer]
    total: Tensor = (statistic[rows] * weights).sum(0)
    return total
