"""The search space: the parameters of a trial, and how they make a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from adapruner.config import PlanConfig, PruningConfig, SearchConfig
from adapruner.config.search import Fusion
from adapruner.importance.recipe import ALIGNMENT, Recipe, default_align
from adapruner.importance.table import ImportanceTable
from adapruner.pruning.reconstruction import uses_gram_matrices
from adapruner.pruning.updates.update import RIDGE, RIDGES
from adapruner.search.signatures import DIRECTIONS, Signatures

PROTECTION_RANGE = 2
"""How far the number of protected layers at either end may be from the configured one."""

EQUAL_SHARE = 0.5
"""The parameter of each domain in the equal mix: shares count relative to their sum."""

Distributions = dict[str, BaseDistribution]


class WarmStart(NamedTuple):
    """A recipe that every study starts with, and the parameters that give it.

    The parameters are empty for a recipe outside the space; such a trial sets a baseline and gives
    the sampler no information.
    """

    params: dict[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class SearchSpace:
    """`distributions` by parameter, the warm starts by name, and the samples' `signatures`."""

    distributions: Distributions
    warm_starts: dict[str, WarmStart]
    signatures: Signatures
    fusion: Fusion

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial's parameters."""
        return _recipe(params, self.signatures, self.fusion)


def build_space(table: ImportanceTable, config: PlanConfig, extra_protection: int) -> SearchSpace:
    """The space of a study. `extra_protection` is how many more layers may be protected per end."""
    distributions = _distributions(table, config, extra_protection)
    signatures = Signatures.of(table)
    space = SearchSpace(distributions, {}, signatures, config.search.fusion)
    starts = {
        name: _warm_start(recipe, table, space, config.pruning)
        for name, recipe in _warm_recipes(table, config, distributions).items()
    }
    return replace(space, warm_starts=starts)


def varies_widths(config: PlanConfig) -> bool:
    """Whether trials vary the layers' widths, which no other setting decides."""
    pruning = config.pruning
    is_free = pruning.layout == "per_layer" and pruning.allocation == "auto"
    return is_free and "widths" in config.search.vary


def _distributions(
    table: ImportanceTable, config: PlanConfig, extra_protection: int
) -> Distributions:
    search, pruning = config.search, config.pruning
    space: Distributions = {}
    if "metrics" in search.vary:
        space |= {name: FloatDistribution(0, 1) for name in ("alpha_coarse", "alpha_fine")}
    if search.fusion == "aligned":
        space |= {f"align_{name}": CategoricalDistribution(f) for name, f in ALIGNMENT.items()}
    if "samples" in search.vary:
        space |= _sample_distributions(table, search)
    if "token" in search.vary and search.fusion != "aligned":  # the paper has no factor for it
        space["alpha_token"] = FloatDistribution(0, 1)
    if "shares" in search.vary and table.domains > 1:
        space |= {f"share_{i}": FloatDistribution(0, 1) for i in range(table.domains)}
    if varies_widths(config):
        space["width_profile"] = FloatDistribution(0, 1)
    if pruning.layout == "per_layer" and "protection" in search.vary:
        for end, count in _protection(pruning).items():
            low, high = max(count - PROTECTION_RANGE, 0), count + extra_protection
            space[end] = IntDistribution(low, high)
    return space | _update_distributions(table, config)


def _sample_distributions(table: ImportanceTable, search: SearchConfig) -> Distributions:
    if search.samples == "slots":
        pool = tuple(range(table.samples))
        return {f"slot_{i}": CategoricalDistribution(pool) for i in range(search.set_size)}
    size = IntDistribution(min(search.set_size, table.samples), table.samples)
    directions = {f"direction_{i}": FloatDistribution(-1, 1) for i in range(DIRECTIONS)}
    return {"set_size": size, **directions}


def _update_distributions(table: ImportanceTable, config: PlanConfig) -> Distributions:
    reconstruction, space = config.reconstruction, Distributions()
    if not uses_gram_matrices(reconstruction.method):
        return space
    if "update" in config.search.vary and table.domains > 1:
        space |= {f"update_share_{i}": FloatDistribution(0, 1) for i in range(table.domains)}
    if "ridge" in config.search.vary and reconstruction.ridge is None:
        space["ridge"] = FloatDistribution(min(RIDGES), max(RIDGES), log=True)
    return space


def _protection(pruning: PruningConfig) -> dict[str, int]:
    """Parameter -> configured number of protected layers at that end."""
    return {"protect_first": pruning.protect_first, "protect_last": pruning.protect_last}


def _recipe(params: Mapping[str, Any], signatures: Signatures, fusion: Fusion) -> Recipe:
    align = {n.removeprefix("align_"): v for n, v in params.items() if n.startswith("align_")}
    ends = ("protect_first", "protect_last")
    return Recipe(
        samples=_samples(params, signatures),
        alpha_coarse=params.get("alpha_coarse", 0.0),
        alpha_fine=params.get("alpha_fine", 0.0),
        alpha_token=params.get("alpha_token", 0.0),
        shares=_shares(params, "share_"),
        fusion=fusion,
        align=align,
        width_profile=params.get("width_profile", 0.0),
        protect=(params[ends[0]], params[ends[1]]) if ends[0] in params else None,
        update_shares=_shares(params, "update_share_"),
        ridge=params.get("ridge"),
    )


def _shares(params: Mapping[str, Any], prefix: str) -> tuple[float, ...]:
    """The share of each domain, with the sum 1; empty where the space has none."""
    count = sum(name.startswith(prefix) for name in params)
    weights = [params[f"{prefix}{i}"] for i in range(count)]
    total = sum(weights)
    return tuple(weight / total if total else 1 / count for weight in weights)


def _samples(params: Mapping[str, Any], signatures: Signatures) -> tuple[int, ...]:
    slots = sorted({v for name, v in params.items() if name.startswith("slot_")})
    if slots:
        return tuple(slots)
    if "set_size" not in params:
        return tuple(range(len(signatures.domain)))
    direction = [params[f"direction_{i}"] for i in range(DIRECTIONS)]
    return signatures.furthest(direction, params["set_size"])


def _warm_recipes(
    table: ImportanceTable, config: PlanConfig, distributions: Distributions
) -> dict[str, Recipe]:
    """Name -> recipe of the warm starts that make sense in the space: on the equal mix."""
    search, domains = config.search, table.domains
    is_paper = search.samples == "slots" and "samples" in search.vary
    samples = table.reference if is_paper else tuple(range(table.samples))
    equal = {
        field: (1 / domains,) * domains
        for field, name in (("shares", "share_0"), ("update_shares", "update_share_0"))
        if name in distributions
    }
    ridge = {"ridge": RIDGE} if "ridge" in distributions else {}
    common: dict[str, Any] = {
        "fusion": search.fusion, "align": default_align(search.fusion), **equal, **ridge,
    }  # fmt: skip
    recipes = {"fisher": Recipe(samples=samples, **common)}
    if "alpha_token" in distributions:
        recipes["masks"] = recipes["fisher"].model_copy(update={"alpha_token": 1.0})
        recipes["both"] = recipes["fisher"].model_copy(update={"alpha_token": 0.5})
        if "width_profile" in distributions:
            recipes["profile"] = recipes["both"].model_copy(update={"width_profile": 1.0})
    element = Recipe(metric="element1", samples=table.reference)
    recipes["llm-pruner-element"] = element.model_copy(
        update={"update_shares": equal.get("update_shares", ()), **ridge}
    )
    return recipes


def _warm_start(
    recipe: Recipe, table: ImportanceTable, space: SearchSpace, pruning: PruningConfig
) -> WarmStart:
    """The recipe with the parameters that give it; without where the space has none that do."""
    distributions = space.distributions
    values: dict[str, Any] = {f"direction_{i}": 0.0 for i in range(DIRECTIONS)}
    values |= {f"slot_{i}": n for i, n in enumerate(table.reference)}
    values |= {f"align_{name}": factors[0] for name, factors in ALIGNMENT.items()}
    for prefix in ("share_", "update_share_"):
        values |= {f"{prefix}{i}": EQUAL_SHARE for i in range(table.domains)}
    values |= {"set_size": len(recipe.samples), **_protection(pruning)}
    values |= recipe.model_dump(include={*distributions} & {*Recipe.model_fields})
    params = {name: values[name] for name in distributions if name in values}
    if set(params) < set(distributions):
        return WarmStart({}, recipe)
    rebuilt = space.recipe(params)
    fields = ("metric", "samples", "alpha_token", "width_profile", "update_shares", "ridge")
    is_inside = all(getattr(rebuilt, field) == getattr(recipe, field) for field in fields)
    return WarmStart(params if is_inside else {}, recipe)
