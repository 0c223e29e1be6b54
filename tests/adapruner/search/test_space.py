"""The search space: warm starts are inside it, and parameters make recipes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optuna.distributions import CategoricalDistribution

from adapruner.config import PruningConfig, SearchConfig
from adapruner.importance.recipe import Recipe
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceTable
from adapruner.search.space import DIRECTIONS, build_space, sample_signatures
from tests.models import small_model, tokens

PRUNING = PruningConfig(protect_first=1, protect_last=1)


@pytest.fixture(scope="module")
def table() -> ImportanceTable:
    source = (0,) * 6 + (1,) * 6
    return importance_table(small_model("llama"), tokens(12, 16), [0, 3, 5, 8], source)


@pytest.mark.parametrize("samples", ["signature", "slots"])
@pytest.mark.parametrize("scaling", ["layer_mean", "aligned"])
@pytest.mark.parametrize("vary", [(), ("token", "shares", "widths", "protection")])
def test_parameters_of_a_warm_start_give_its_recipe(
    samples: Any, scaling: Any, vary: Any, table: ImportanceTable
) -> None:
    search = SearchConfig(set_size=4, samples=samples, scaling=scaling, vary=vary)
    space = build_space(table, search, PRUNING, 1)
    inside = 0
    for start in space.warm_starts.values():
        if start.params:
            inside += 1
            assert set(start.params) == set(space.distributions)
            assert all(
                space.distributions[n]._contains(space.distributions[n].to_internal_repr(v))
                for n, v in start.params.items()
            )
            recipe = space.recipe(start.params)
            assert recipe.samples == start.recipe.samples
            assert recipe.alpha_token == start.recipe.alpha_token
            assert recipe.width_profile == start.recipe.width_profile
    assert inside, "the sampler learns from at least one warm start"
    assert space.warm_starts["llm-pruner-element"].recipe.samples == table.reference


def test_dimensions_follow_the_settings(table: ImportanceTable) -> None:
    search = SearchConfig(set_size=4)
    assert {"alpha_token", "share_0", "share_1", "width_profile", "protect_first"} <= set(
        build_space(table, search, PRUNING, 1).distributions
    )
    uniform = PRUNING.model_copy(update={"layout": "uniform"})
    assert not {"width_profile", "protect_first"} & set(
        build_space(table, search, uniform, 0).distributions
    )
    paper = SearchConfig(set_size=4, samples="slots", scaling="aligned", vary=())
    distributions = build_space(table, paper, PRUNING, 0).distributions
    slots = [d for name, d in distributions.items() if name.startswith("slot_")]
    assert len(slots) == 4
    assert all(isinstance(slot, CategoricalDistribution) for slot in slots)


def test_direction_selects_the_samples_furthest_along_it(table: ImportanceTable) -> None:
    signatures = sample_signatures(table)
    assert signatures.shape == (12, DIRECTIONS)
    space = build_space(table, SearchConfig(set_size=4), PRUNING, 0)
    params = {
        "alpha_coarse": 0.0, "alpha_fine": 0.0, "set_size": 5, "direction_0": 1.0,
        "direction_1": 0.0,
    }  # fmt: skip
    chosen = space.recipe(params).samples
    assert len(chosen) == 5
    others = [n for n in range(12) if n not in chosen]
    assert signatures[list(chosen), 0].min() >= signatures[others, 0].max()
    assert torch.equal(sample_signatures(table), signatures), "signs are fixed"


def test_recipe_refuses_unknown_fields() -> None:
    with pytest.raises(ValueError, match="alpha_coarser"):
        Recipe(samples=(0,), alpha_coarser=1.0)  # type: ignore[call-arg]


def test_each_share_belongs_to_its_source_when_there_are_more_than_ten() -> None:
    sources = 12
    table = importance_table(
        small_model("llama"), tokens(sources, 16), [0, 3, 5, 8], tuple(range(sources))
    )
    search = SearchConfig(set_size=4, vary=("shares",))
    space = build_space(table, search, PRUNING, 1)
    params = dict(next(start.params for start in space.warm_starts.values() if start.params))
    shares = [0.05 + 0.05 * i for i in range(sources)]
    params |= {f"share_{i}": share for i, share in enumerate(shares)}
    assert space.recipe(params).shares == tuple(shares)
