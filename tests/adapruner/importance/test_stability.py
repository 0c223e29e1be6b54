"""The importance fluctuation, by hand and for every metric with scores of single samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapruner.errors import UserError
from adapruner.importance.metrics import METRICS
from adapruner.importance.recipe import Recipe, default_align
from adapruner.importance.scores import score, score_with_fluctuation
from adapruner.importance.stability import fluctuation
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceTable
from adapruner.importance.terms import Term
from tests.models import KINDS, small_model, tokens

REFERENCE = [0, 3, 4]


def table_of(kind: str) -> ImportanceTable:
    return importance_table(small_model(kind), tokens(6, 10), REFERENCE)


def recipe_of(metric: str, **changes: Any) -> Recipe:
    on_reference = METRICS[metric].needs.samples == "reference"
    samples = tuple(REFERENCE if on_reference else range(6))
    return Recipe(metric=metric, samples=samples, **changes)


def test_fluctuation_by_hand() -> None:
    """Two samples and one layer; a module has two structures."""
    steady, moving = torch.tensor([[1.0, 1], [1, 1]]), torch.tensor([[1.0, 2], [4, 5]])
    terms = {
        # Summed: 3 and 9. Mean 6, standard deviation 3.
        "mlp": [Term("coarse", 1.0, [moving.sum(0)], lambda _: moving)],
        # Over their layer means the metrics have equal parts: 0.5 and 1.5, and 1 and 1.
        # Mean 1, standard deviation 0.25.
        "heads": [
            Term("coarse", 1.0, [moving.sum(0)], lambda _: moving),
            Term("magnitude", 1.0, [steady.sum(0)], lambda _: steady),
        ],
        "groups": [Term("coarse", 0.0, [steady.sum(0)], lambda _: steady)],
    }
    recipe, ones = Recipe(samples=(0, 1)), torch.ones(2, 1)
    found = fluctuation(lambda kind: terms[kind], recipe, ones)
    assert found["mlp"].tolist() == pytest.approx([0.5])
    assert found["attention"].tolist() == pytest.approx([0.25])
    once = fluctuation(lambda kind: terms[kind], recipe, torch.tensor([[1.0], [0.0]]))
    assert once["mlp"].tolist() == [0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_fluctuation_of_fisher_is_that_of_the_layers_sums(kind: str) -> None:
    table = table_of(kind)
    scores = score_with_fluctuation(table, recipe_of("fisher"))
    assert scores.fluctuation is not None
    for index, layer in enumerate(table.fisher["mlp"]):
        sums = layer.double().sum(1)
        expected = sums.std(correction=0) / sums.mean()
        torch.testing.assert_close(scores.fluctuation["mlp"][index], expected)


@pytest.mark.parametrize("fusion", ["layer_mean", "model_mean", "learned", "aligned"])
def test_saap_has_a_fluctuation_with_every_fusion(fusion: Any) -> None:
    table = table_of("llama")
    recipe = recipe_of("saap", fusion=fusion, align=default_align(fusion))
    scores = score_with_fluctuation(table, recipe)
    plain = score(table, recipe)
    assert plain.fluctuation is None
    assert all(map(torch.equal, scores.mlp, plain.mlp))
    assert scores.fluctuation is not None
    for values in scores.fluctuation.values():
        assert values.shape == (4,)
        assert values.dtype == torch.float64
        assert (values > 0).all()
        assert torch.isfinite(values).all()


@pytest.mark.parametrize("name", METRICS)
def test_metric_without_scores_of_samples_is_refused_with_one_line(name: str) -> None:
    table, recipe = table_of("llama"), recipe_of(name)
    if METRICS[name].terms is None:
        with pytest.raises(UserError, match=f"search.metric {name} has no scores of single sam"):
            score_with_fluctuation(table, recipe)
    else:
        assert score_with_fluctuation(table, recipe).fluctuation is not None


def test_searched_recipe_has_a_fluctuation_of_its_mix() -> None:
    table = table_of("llama")
    one = score_with_fluctuation(table, Recipe(samples=tuple(range(6))))
    other = score_with_fluctuation(table, recipe_of("fisher"))
    assert one.fluctuation is not None
    assert other.fluctuation is not None
    torch.testing.assert_close(one.fluctuation["mlp"], other.fluctuation["mlp"])
    mixed = Recipe(samples=tuple(range(6)), alpha_coarse=0.4, alpha_fine=0.5, alpha_token=0.5)
    assert score_with_fluctuation(table, mixed).fluctuation is not None
