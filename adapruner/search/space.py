"""The search space: what a trial may choose, and how its parameters become a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import Tensor

from adapruner.config import PruningConfig, SearchConfig
from adapruner.importance.statistics import ImportanceTable
from adapruner.importance.scores import ALIGNMENT, Recipe

DIRECTIONS = 2
"""How many directions of the signature space tell samples apart."""

Space = dict[str, BaseDistribution]
Starts = dict[str, tuple[dict[str, Any], Recipe]]


REACH = 2
"""How far the number of protected layers at either end may be from what the configuration says."""


def search_space(
    table: ImportanceTable, search: SearchConfig, pruning: PruningConfig, reach: int
) -> Space:
    """Name -> distribution of every parameter of a trial.

    `reach` is how many more layers may be protected at each end, for which the ratio can be met.
    """
    space: Space = {
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
    sources = max(table.source) + 1
    if "shares" in search.vary and sources > 1:
        space |= {f"share_{i}": FloatDistribution(0.05, 1) for i in range(sources)}
    if pruning.layout == "per_layer" and "widths" in search.vary:
        space["width_profile"] = FloatDistribution(0, 1)
    if pruning.layout == "per_layer" and "protection" in search.vary:
        for end, count in protected(pruning).items():
            space[end] = IntDistribution(max(count - REACH, 0), count + reach)
    return space


def protected(pruning: PruningConfig) -> dict[str, int]:
    """Parameter -> number of layers that the configuration protects at that end."""
    return {"protect_first": pruning.protect_first, "protect_last": pruning.protect_last}


def recipe_of(params: Mapping[str, Any], signatures: Tensor) -> Recipe:
    """The recipe that a trial's parameters spell. `signatures` is [N, DIRECTIONS]."""
    samples = _samples(params, signatures)
    align = {n.removeprefix("align_"): v for n, v in params.items() if n.startswith("align_")}
    shares = tuple(v for n, v in sorted(params.items()) if n.startswith("share_"))
    ends = ("protect_first", "protect_last")
    return Recipe(
        samples=samples,
        alpha_coarse=params["alpha_coarse"],
        alpha_fine=params["alpha_fine"],
        alpha_token=params.get("alpha_token", 0.0),
        shares=shares,
        align=align,
        width_profile=params.get("width_profile", 0.0),
        protect=(params[ends[0]], params[ends[1]]) if ends[0] in params else None,
    )


def warm_starts(
    table: ImportanceTable, space: Space, search: SearchConfig, pruning: PruningConfig
) -> Starts:
    """Name -> (parameters, recipe) of the trials that every study starts with.

    The parameters are empty for a recipe that the space can't spell; such a trial sets the mark
    to beat but teaches the sampler nothing.
    """
    slots = search.samples == "slots"
    samples = table.reference if slots else tuple(range(table.samples))
    known = {
        "fisher": Recipe(samples=samples),
        "masks": Recipe(samples=samples, alpha_token=1.0),
        "both": Recipe(samples=samples, alpha_token=0.5),
        "profile": Recipe(samples=samples, alpha_token=0.5, width_profile=1.0),
        "llm-pruner-element": Recipe(metric="element1", samples=table.reference),
    }
    if "alpha_token" not in space:
        del known["masks"], known["both"], known["profile"]
    elif "width_profile" not in space:
        del known["profile"]
    signs = signatures(table)
    return {
        name: (_spelt(recipe, table, space, signs, pruning), recipe)
        for name, recipe in known.items()
    }


def _spelt(
    recipe: Recipe, table: ImportanceTable, space: Space, signs: Tensor, pruning: PruningConfig
) -> dict[str, Any]:
    """The parameters that give `recipe`; none where the space has none that do."""
    sizes = [table.source.count(i) for i in range(max(table.source) + 1)]
    centre: dict[str, Any] = {f"direction_{i}": 0.0 for i in range(DIRECTIONS)}
    centre |= {f"slot_{i}": n for i, n in enumerate(table.reference)}
    centre |= {f"align_{name}": factors[0] for name, factors in ALIGNMENT.items()}
    centre |= {f"share_{i}": max(size / max(sizes), 0.05) for i, size in enumerate(sizes)}
    centre |= {"set_size": len(recipe.samples), **protected(pruning)}
    centre |= recipe.model_dump(include={*space} & {*Recipe.model_fields})
    if not set(space) <= set(centre):
        return {}
    params = {name: centre[name] for name in space}
    planned = recipe_of(params, signs)
    same = ("metric", "samples", "alpha_token", "width_profile")
    return params if all(getattr(planned, f) == getattr(recipe, f) for f in same) else {}


def signatures(table: ImportanceTable) -> Tensor:
    """[N, DIRECTIONS]: samples told apart by which channels they find important.

    Principal components of the samples' log Fisher importance over all channels, each of unit
    variance; signs are fixed so that equal tables give equal signatures.
    """
    logs = [layer.clamp_min(1e-30).log().double() for layer in table.fisher["mlp"]]
    centred = [rows - rows.mean(0) - (rows - rows.mean(0)).mean(1, keepdim=True) for rows in logs]
    gram = sum((rows @ rows.T for rows in centred), torch.zeros(()).double())
    _, vectors = torch.linalg.eigh(gram)
    found = vectors.flip(1)[:, :DIRECTIONS]
    found = torch.nn.functional.pad(found, (0, DIRECTIONS - found.shape[1]))
    peaks = found.gather(0, found.abs().argmax(0, keepdim=True)).sign()
    scaled: Tensor = found * peaks * float(len(found)) ** 0.5
    return scaled.float()


def _samples(params: Mapping[str, Any], signatures: Tensor) -> tuple[int, ...]:
    slots = sorted({v for name, v in params.items() if name.startswith("slot_")})
    if slots:
        return tuple(slots)
    direction = torch.tensor([params[f"direction_{i}"] for i in range(DIRECTIONS)])
    order = torch.sort(signatures @ direction, descending=True, stable=True).indices
    return tuple(sorted(int(n) for n in order[: params["set_size"]]))
