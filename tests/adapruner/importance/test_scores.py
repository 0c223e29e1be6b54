"""Recipes: the extremes of the mix are single metrics; sources weigh as their shares."""

from __future__ import annotations

import pytest
import torch

from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceTable
from tests.models import small_model, tokens

SUBSET, REFERENCE = (1, 2, 5), (0, 3, 4)
LAYER = 1


@pytest.fixture(scope="module")
def table() -> ImportanceTable:
    source = (0, 0, 0, 1, 1, 1, 1)
    return importance_table(small_model("llama"), tokens(7, 10), list(REFERENCE), source)


@pytest.mark.parametrize(
    ("alphas", "group", "part"),
    [
        ({}, "fisher", "mlp"),
        ({"alpha_fine": 1.0}, "magnitude", "mlp"),
        ({"alpha_token": 1.0}, "token", "down"),
    ],
)
def test_extreme_recipe_is_one_metric_divided_by_its_layer_mean(
    alphas: dict[str, float], group: str, part: str, table: ImportanceTable
) -> None:
    scores = score(table, Recipe(samples=SUBSET, **alphas)).mlp[LAYER]
    expected = getattr(table, group)[part][LAYER][list(SUBSET)].sum(0)
    torch.testing.assert_close(scores, expected / expected.mean())


def test_alignment_multiplies_instead_of_dividing_by_the_mean(table: ImportanceTable) -> None:
    recipe = Recipe(samples=SUBSET, fusion="aligned", align={"fisher": 1e5})
    scores = score(table, recipe).mlp[LAYER]
    expected = table.fisher["mlp"][LAYER][list(SUBSET)].sum(0)
    torch.testing.assert_close(scores, 1e5 * expected)


def test_source_has_its_share_however_many_samples_it_has(table: ImportanceTable) -> None:
    fisher = table.fisher["mlp"][LAYER]
    samples = tuple(range(7))
    scores = score(table, Recipe(samples=samples, shares=(1.0, 0.5))).mlp[LAYER]
    expected = fisher[:3].mean(0) + 0.5 * fisher[3:].mean(0)
    torch.testing.assert_close(scores, expected / expected.mean())


def test_element_wise_score_is_refused_for_other_samples_than_the_reference_subset(
    table: ImportanceTable,
) -> None:
    score(table, Recipe(metric="element1", samples=REFERENCE))
    with pytest.raises(ValueError, match="exact for the reference subset"):
        score(table, Recipe(metric="element1", samples=SUBSET))
