"""The search space: warm starts are inside it, and parameters make recipes."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution

from adapruner.config import (
    ModelConfig,
    PlanConfig,
    PruningConfig,
    ReconstructionConfig,
    SearchConfig,
)
from adapruner.importance.recipe import Recipe
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceTable
from adapruner.search.trials.space import build_space
from tests.models import small_model, tokens

PRUNING = PruningConfig(protect_first=1, protect_last=1)
ALL = ("metrics", "samples", "token", "shares", "update", "ridge", "widths", "protection")


def plan_config(**changes: Any) -> PlanConfig:
    sections: dict[str, Any] = {
        "search": SearchConfig(set_size=4),
        "pruning": PRUNING,
        "reconstruction": ReconstructionConfig(),
    }
    return PlanConfig(seed=0, model=ModelConfig(source="model"), **(sections | changes))


@pytest.fixture(scope="module")
def table() -> ImportanceTable:
    domain = (0,) * 6 + (1,) * 6
    return importance_table(small_model("llama"), tokens(12, 16), [0, 3, 5, 8], domain)


@pytest.mark.parametrize("samples", ["signature", "slots"])
@pytest.mark.parametrize("fusion", ["layer_mean", "model_mean", "learned", "aligned"])
@pytest.mark.parametrize("vary", [("metrics", "samples"), ALL])
def test_parameters_of_a_warm_start_give_its_recipe(
    samples: Any, fusion: Any, vary: Any, table: ImportanceTable
) -> None:
    search = SearchConfig(set_size=4, samples=samples, fusion=fusion, vary=vary)
    space = build_space(table, plan_config(search=search), 1)
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
            same = ("samples", "alpha_token", "width_profile", "update_shares", "ridge", "shares")
            for field in same:
                assert getattr(recipe, field) == getattr(start.recipe, field), field
    assert inside, "the sampler learns from at least one warm start"
    assert space.warm_starts["llm-pruner-element"].recipe.samples == table.reference


def test_dimensions_follow_the_settings(table: ImportanceTable) -> None:
    everything = {"alpha_token", "share_0", "update_share_1", "ridge", "width_profile"}
    assert everything | {"protect_first"} <= set(build_space(table, plan_config(), 1).distributions)
    uniform = PRUNING.model_copy(update={"layout": "uniform"})
    assert not {"width_profile", "protect_first"} & set(
        build_space(table, plan_config(pruning=uniform), 0).distributions
    )
    fluctuation = PRUNING.model_copy(update={"allocation": "fluctuation"})
    decided = build_space(table, plan_config(pruning=fluctuation), 0)
    assert "width_profile" not in decided.distributions
    assert "profile" not in decided.warm_starts
    paper = SearchConfig(set_size=4, samples="slots", fusion="aligned", vary=("metrics", "samples"))
    distributions = build_space(table, plan_config(search=paper), 0).distributions
    slots = [d for name, d in distributions.items() if name.startswith("slot_")]
    assert len(slots) == 4
    assert all(isinstance(slot, CategoricalDistribution) for slot in slots)


@pytest.mark.parametrize(
    ("reconstruction", "updated"),
    [
        (ReconstructionConfig(), {"update_share_0", "update_share_1", "ridge"}),
        (ReconstructionConfig(ridge=0.1), {"update_share_0", "update_share_1"}),
        (ReconstructionConfig(method="bias"), set()),
        (ReconstructionConfig(method="none"), set()),
    ],
)
def test_update_is_searched_where_the_reconstruction_uses_it(
    reconstruction: ReconstructionConfig, updated: set[str], table: ImportanceTable
) -> None:
    space = build_space(table, plan_config(reconstruction=reconstruction), 1)
    names = {"update_share_0", "update_share_1", "ridge"}
    assert names & set(space.distributions) == updated
    recipe = space.warm_starts["fisher"].recipe
    assert recipe.ridge == (0.1 if "ridge" in updated else None)
    assert recipe.update_shares == ((0.5, 0.5) if updated else ())


def test_shares_count_relative_to_their_sum(table: ImportanceTable) -> None:
    space = build_space(table, plan_config(), 1)
    params = space.warm_starts["fisher"].params
    changed = params | {"share_0": 0.2, "share_1": 0.6, "update_share_0": 0, "update_share_1": 0}
    recipe = space.recipe(changed)
    assert recipe.shares == pytest.approx((0.25, 0.75))
    assert recipe.update_shares == (0.5, 0.5), "no share at all is the equal mix"


def test_recipe_refuses_unknown_fields() -> None:
    with pytest.raises(ValueError, match="alpha_coarser"):
        Recipe(samples=(0,), alpha_coarser=1.0)  # type: ignore[call-arg]


def test_each_share_belongs_to_its_domain_when_there_are_more_than_ten() -> None:
    domains = 12
    table = importance_table(
        small_model("llama"), tokens(domains, 16), [0, 3, 5, 8], tuple(range(domains))
    )
    search = SearchConfig(set_size=4, vary=("shares",))
    space = build_space(table, plan_config(search=search), 1)
    params = dict(next(start.params for start in space.warm_starts.values() if start.params))
    shares = [0.05 + 0.05 * i for i in range(domains)]
    params |= {f"share_{i}": share for i, share in enumerate(shares)}
    assert space.recipe(params).shares == pytest.approx([s / sum(shares) for s in shares])
