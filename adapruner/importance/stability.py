"""The importance fluctuation of a module: how far its importance differs between samples.

SAAP (arXiv 2412.15127) ranks modules by the relative change of their importance over samples. The
formula is our choice: the standard deviation over the samples, divided by the mean. It does not
depend on the samples' order, as the mean of |I_n+1 - I_n| does.

The importance of a module for one sample is the sum of the fused scores of its structures. Each
metric has the part of that sum, over the samples, that it has in the fused scores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from adapruner.importance.fusion import SMALLEST, weighted
from adapruner.importance.recipe import Recipe
from adapruner.importance.terms import Term

MODULES = {"mlp": ("mlp",), "attention": ("heads", "groups")}
"""Module of a layer -> the kinds of structures in it."""


def fluctuation(
    terms_of: Callable[[str], list[Term]], recipe: Recipe, weights: Tensor
) -> dict[str, Tensor]:
    """Module -> float64 [layers]: the standard deviation of its importance over the mean.

    `terms_of` gives the terms of a kind of structures, and `weights`, [R, 1], those of the samples.
    """
    share = (weights / weights.sum()).double().squeeze(1)
    deviation = partial(_relative_deviation, share=share)
    result = {}
    for module, kinds in MODULES.items():
        by_kind = [_importance(terms_of(kind), recipe, weights, share) for kind in kinds]
        result[module] = torch.stack([deviation(sum(x)) for x in zip(*by_kind, strict=True)])
    return result


def _importance(terms: list[Term], recipe: Recipe, weights: Tensor, share: Tensor) -> list[Tensor]:
    """float64 [R] by layer: the summed fused scores of each sample."""
    layers = range(len(terms[0].values))
    total = [torch.zeros(len(share), dtype=torch.float64) for _ in layers]
    for term in terms:
        if not term.share:
            continue
        for i, fused in enumerate(weighted(term, recipe, weights)):
            of_samples = term.by_sample(i).sum(1).double()
            mean = (of_samples * share).sum().clamp_min(SMALLEST)
            total[i] += fused.sum().double() * of_samples / mean
    return total


def _relative_deviation(importance: Tensor, share: Tensor) -> Tensor:
    """[]: of `importance` [R], with the samples' shares [R]."""
    mean = (importance * share).sum()
    variance = ((importance - mean).square() * share).sum()
    return variance.sqrt() / mean.clamp_min(SMALLEST)
