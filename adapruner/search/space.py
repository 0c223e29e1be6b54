"""The search space: the parameters of a trial, and how they make a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor

from adapruner.config import PruningConfig, SearchConfig
from adapruner.importance.recipe import ALIGNMENT, Recipe
from adapruner.importance.table import ImportanceTable

DIRECTIONS = 2
"""Number of directions in the space of the samples' signatures."""

PROTECTION_RANGE = 2
"""How far the number of protected layers at either end may be from the configured one."""

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
    """`distributions` by parameter, the warm starts by name, and `signatures` [N, DIRECTIONS]."""

    distributions: Distributions
    warm_starts: dict[str, WarmStart]
    signatures: Tensor

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial's parameters."""
        return _recipe(params, self.signatures)


def build_space(
    table: ImportanceTable, search: SearchConfig, pruning: PruningConfig, extra_protection: int
) -> SearchSpace:
    """The space of a study. `extra_protection` is how many more layers may be protected per end."""
    distributions = _distributions(table, search, pruning, extra_protection)
    signatures = sample_signatures(table)
    starts = {
        name: WarmStart(_params_of(recipe, table, distributions, signatures, pruning), recipe)
        for name, recipe in _warm_recipes(table, search, distributions).items()
    }
    return SearchSpace(distributions, starts, signatures)


def sample_signatures(table: ImportanceTable) -> Tensor:
    """[N, DIRECTIONS]: principal components of the samples' importance patterns.

    Components of the log Fisher importance over all channels, each of unit variance; signs are
    fixed so that equal tables give equal signatures.
    """
    logs = [layer.clamp_min(1e-30).log().double() for layer in table.fisher["mlp"]]
    centred = [rows - rows.mean(0) - (rows - rows.mean(0)).mean(1, keepdim=True) for rows in logs]
    gram = sum((rows @ rows.T for rows in centred), torch.zeros(()).double())
    _, vectors = torch.linalg.eigh(gram)
    components = vectors.flip(1)[:, :DIRECTIONS]
    components = torch.nn.functional.pad(components, (0, DIRECTIONS - components.shape[1]))
    peaks = components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
    scaled: Tensor = components * peaks * float(len(components)) ** 0.5
    return scaled.float()


def _distributions(
    table: ImportanceTable, search: SearchConfig, pruning: PruningConfig, extra_protection: int
) -> Distributions:
    space: Distributions = {
        "alpha_coarse": FloatDistribution(0, 1),
        "alpha_fine": FloatDistribution(0, 1),
    }
    if search.scaling == "aligned":
        space |= {f"align_{name}": CategoricalDistribution(f) for name, f in ALIGNMENT.items()}
    if search.samples == "slots":
        pool = tuple(range(table.samples))
        space |= {f"slot_{i}": CategoricalDistribution(pool) for i in range(search.set_size)}
    else:
        space["set_size"] = IntDistribution(min(search.set_size, table.samples), table.samples)
        space |= {f"direction_{i}": FloatDistribution(-1, 1) for i in range(DIRECTIONS)}
    if "token" in search.vary and search.scaling == "layer_mean":  # the paper has no factor for it
        space["alpha_token"] = FloatDistribution(0, 1)
    if "shares" in search.vary and table.domains > 1:
        space |= {f"share_{i}": FloatDistribution(0.05, 1) for i in range(table.domains)}
    if pruning.layout == "per_layer" and "widths" in search.vary:
        space["width_profile"] = FloatDistribution(0, 1)
    if pruning.layout == "per_layer" and "protection" in search.vary:
        for end, count in _protection(pruning).items():
            low, high = max(count - PROTECTION_RANGE, 0), count + extra_protection
            space[end] = IntDistribution(low, high)
    return space


def _protection(pruning: PruningConfig) -> dict[str, int]:
    """Parameter -> configured number of protected layers at that end."""
    return {"protect_first": pruning.protect_first, "protect_last": pruning.protect_last}


def _recipe(params: Mapping[str, Any], signatures: Tensor) -> Recipe:
    align = {n.removeprefix("align_"): v for n, v in params.items() if n.startswith("align_")}
    sources = sum(name.startswith("share_") for name in params)
    shares = tuple(params[f"share_{i}"] for i in range(sources))
    ends = ("protect_first", "protect_last")
    return Recipe(
        samples=_samples(params, signatures),
        alpha_coarse=params["alpha_coarse"],
        alpha_fine=params["alpha_fine"],
        alpha_token=params.get("alpha_token", 0.0),
        shares=shares,
        align=align,
        width_profile=params.get("width_profile", 0.0),
        protect=(params[ends[0]], params[ends[1]]) if ends[0] in params else None,
    )


def _samples(params: Mapping[str, Any], signatures: Tensor) -> tuple[int, ...]:
    slots = sorted({v for name, v in params.items() if name.startswith("slot_")})
    if slots:
        return tuple(slots)
    direction = torch.tensor([params[f"direction_{i}"] for i in range(DIRECTIONS)])
    order = torch.sort(signatures @ direction, descending=True, stable=True).indices
    return tuple(sorted(int(n) for n in order[: params["set_size"]]))


def _warm_recipes(
    table: ImportanceTable, search: SearchConfig, distributions: Distributions
) -> dict[str, Recipe]:
    """Name -> recipe of the warm starts that make sense in the space."""
    samples = table.reference if search.samples == "slots" else tuple(range(table.samples))
    recipes = {"fisher": Recipe(samples=samples)}
    if "alpha_token" in distributions:
        recipes["masks"] = Recipe(samples=samples, alpha_token=1.0)
        recipes["both"] = Recipe(samples=samples, alpha_token=0.5)
        if "width_profile" in distributions:
            recipes["profile"] = Recipe(samples=samples, alpha_token=0.5, width_profile=1.0)
    recipes["llm-pruner-element"] = Recipe(metric="element1", samples=table.reference)
    return recipes


def _params_of(
    recipe: Recipe,
    table: ImportanceTable,
    distributions: Distributions,
    signatures: Tensor,
    pruning: PruningConfig,
) -> dict[str, Any]:
    """The parameters that give `recipe`; empty where the space has none that do."""
    sizes = [table.domain.count(i) for i in range(table.domains)]
    values: dict[str, Any] = {f"direction_{i}": 0.0 for i in range(DIRECTIONS)}
    values |= {f"slot_{i}": n for i, n in enumerate(table.reference)}
    values |= {f"align_{name}": factors[0] for name, factors in ALIGNMENT.items()}
    values |= {f"share_{i}": max(size / max(sizes), 0.05) for i, size in enumerate(sizes)}
    values |= {"set_size": len(recipe.samples), **_protection(pruning)}
    values |= recipe.model_dump(include={*distributions} & {*Recipe.model_fields})
    if not set(distributions) <= set(values):
        return {}
    params = {name: values[name] for name in distributions}
    rebuilt = _recipe(params, signatures)
    fields = ("metric", "samples", "alpha_token", "width_profile")
    return params if all(getattr(rebuilt, f) == getattr(recipe, f) for f in fields) else {}
