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
from adapruner.importance import ImportanceTable
from adapruner.scoring import ALIGNMENT, Recipe

DIRECTIONS = 2
"""How many directions of the signature space tell samples apart."""

Space = dict[str, BaseDistribution]


def search_space(table: ImportanceTable, search: SearchConfig, pruning: PruningConfig) -> Space:
    """Name -> distribution of every parameter of a trial."""
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
    if search.width_profile and pruning.layout == "per_layer":
        space["width_exponent"] = FloatDistribution(0, 1)
    return space


def recipe_of(params: Mapping[str, Any], signatures: Tensor) -> Recipe:
    """The recipe that a trial's parameters spell. `signatures` is [N, DIRECTIONS]."""
    align = {n.removeprefix("align_"): v for n, v in params.items() if n.startswith("align_")}
    return Recipe(
        samples=_samples(params, signatures),
        alpha_coarse=params["alpha_coarse"],
        alpha_fine=params["alpha_fine"],
        align=align,
        width_exponent=params.get("width_exponent", 0.0),
    )


def warm_starts(
    table: ImportanceTable, space: Space, search: SearchConfig
) -> dict[str, tuple[dict[str, Any], Recipe]]:
    """Name -> (parameters, recipe) of the trials that every study starts with.

    The parameters are empty for a recipe that the space can't spell; such a trial sets the mark
    to beat but teaches the sampler nothing.
    """
    pool = tuple(range(table.samples))
    centre: dict[str, Any] = {"alpha_coarse": 0.0, "alpha_fine": 0.0}
    centre |= {f"align_{name}": factors[0] for name, factors in ALIGNMENT.items()}
    centre |= {f"direction_{i}": 0.0 for i in range(DIRECTIONS)}
    centre |= {f"slot_{i}": n for i, n in enumerate(table.reference)}
    centre |= {"set_size": table.samples, "width_exponent": 0.0}
    fisher = {name: centre[name] for name in space}
    profiled = fisher | {"width_exponent": 0.3}
    whole = search.samples == "signature"
    starts = {
        "fisher-pool": (fisher if whole else {}, Recipe(samples=pool)),
        "llm-pruner-element": ({}, Recipe(metric="element1", samples=table.reference)),
        "llm-pruner-vector": ({}, Recipe(metric="vector", samples=table.reference)),
    }
    if "width_exponent" in space:
        recipe = Recipe(samples=pool, width_exponent=0.3)
        starts["fisher-pool-profile"] = (profiled if whole else {}, recipe)
    return starts


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
