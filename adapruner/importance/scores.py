"""From the importance table and a recipe to one score per structure. No model is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from adapruner.errors import UserError
from adapruner.importance.fusion import fuse
from adapruner.importance.metrics import METRICS
from adapruner.importance.recipe import MIX, Recipe
from adapruner.importance.stability import fluctuation
from adapruner.importance.table import KINDS, ImportanceTable
from adapruner.importance.terms import Term, sample_weights, statistic_term


@dataclass(frozen=True)
class Scores:
    """Scores by layer, higher is more important: channels [C], query heads [H], KV groups [G].

    A head's score is of its own rows and columns; a group's is of its key and value alone.
    `comparable`: channels of different layers can be ranked together. `fluctuation`, where it was
    requested: module (mlp, attention) -> float64 [layers], see `stability`.
    """

    mlp: list[Tensor]
    heads: list[Tensor]
    groups: list[Tensor]
    comparable: bool = False
    fluctuation: dict[str, Tensor] | None = None


def score(table: ImportanceTable, recipe: Recipe) -> Scores:
    """The scores that `recipe` assigns to the structures of `table`."""
    if recipe.metric == MIX:
        weights = sample_weights(table, recipe)
        mlp, heads, groups = (fuse(_mix(table, recipe, kind), recipe, weights) for kind in KINDS)
        return Scores(mlp, heads, groups)
    metric = METRICS[recipe.metric]
    mlp, heads, groups = (metric.function(table, recipe, kind) for kind in KINDS)
    return Scores(mlp, heads, groups, metric.needs.comparable)


def score_with_fluctuation(table: ImportanceTable, recipe: Recipe) -> Scores:
    """The same, with the importance fluctuation of each layer's modules.

    Raises UserError for a metric without scores of single samples.
    """
    terms = _mix if recipe.metric == MIX else METRICS[recipe.metric].terms
    if terms is None:
        able = [name for name, metric in METRICS.items() if metric.terms is not None]
        raise UserError(
            f"pruning.allocation fluctuation: search.metric {recipe.metric} has no scores of "
            f"single samples; use {', '.join(able)} or searched, or pruning.allocation: auto"
        )
    weights = sample_weights(table, recipe)
    by_module = fluctuation(partial(terms, table, recipe), recipe, weights)
    return replace(score(table, recipe), fluctuation=by_module)


def _mix(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Term]:
    """The terms of a searched recipe, see `Recipe`."""
    second = (1 - recipe.alpha_coarse) * (1 - recipe.alpha_fine)
    shares = {
        "coarse": recipe.alpha_coarse,
        "magnitude": (1 - recipe.alpha_coarse) * recipe.alpha_fine,
        "fisher": second * (1 - recipe.alpha_token),
        "token": second * recipe.alpha_token,
    }
    return [
        statistic_term(table, recipe, kind, name, share) for name, share in shares.items() if share
    ]
