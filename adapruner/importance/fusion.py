"""Adaptive importance fusion: one score from several metrics, by homoscedastic uncertainty.

SAAP (arXiv 2412.15127) fuses the scores I_m of a structure by several metrics to

    I = sum_m I_m / (2 sigma_m^2) + log sigma_m

as the losses of several tasks are summed in multi-task learning (Kendall et al., arXiv 1705.07115).
How sigma is found is not published. Two answers are built, for one sigma a metric:

*Closed form.* Over a set of G structures the sum of I is least where its derivative is zero:
-sum_g I_mg / sigma_m^3 + G / sigma_m = 0, so that sigma_m^2 = mean_g(I_mg). The fusion is then a
sum of metrics, each divided by its mean. The set is a layer's structures of one kind (`layer_mean`)
or the model's (`model_mean`).

*Learned.* The score s_mng of sample n is taken as Gaussian around the structure's mean mu_mg with
the variance sigma_m^2, independent between metrics as in Kendall et al. The joint negative
log-likelihood, up to a constant,

    sum_m sum_n sum_g (s_mng - mu_mg)^2 / (2 sigma_m^2) + log sigma_m

is convex in log sigma_m, and least where mu_mg is the mean over the samples and sigma_m^2 the mean
square of what is left. Gradient descent finds the same, so nothing is iterated. sigma is of a
layer, a kind and a metric. A metric that says something else of each sample then counts less.
The likelihood has units: before it, scores are divided by their mean over the layer and samples, so
that sigma is a coefficient of variation, and so is I_m by its mean over the layer.

`aligned` multiplies by the factors of the AdaPruner paper (arXiv 2503.06184) in place of
1 / sigma^2. log sigma_m and the factor 1/2 are the same for all structures that are ranked with
each other, so they are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from adapruner.importance.recipe import Recipe
    from adapruner.importance.terms import Term

SMALLEST = 1e-30
"""Least mean of a score that it is divided by."""

LEAST_VARIANCE = 1e-6
"""Least learned variance, relative to the squared mean: a single sample has none."""


def fuse(terms: list[Term], recipe: Recipe, weights: Tensor) -> list[Tensor]:
    """[units] by layer: the sum over the terms of share * values / sigma^2, up to a factor.

    `weights`, [R, 1], are those of the recipe's samples. Terms without a share are left out.
    """
    parts = [weighted(term, recipe, weights) for term in terms if term.share]
    return [sum(of_layer[1:], of_layer[0]) for of_layer in zip(*parts, strict=True)]


def weighted(term: Term, recipe: Recipe, weights: Tensor) -> list[Tensor]:
    """[units] by layer: what one term adds to the fused scores."""
    if recipe.fusion == "aligned":
        factor = recipe.align[term.name]  # type: ignore[index]
        return [term.share * factor * values for values in term.values]
    variances = SIGMA_SQUARED[recipe.fusion](term, weights)
    pairs = zip(term.values, variances, strict=True)
    return [term.share * (1 / variance) * values for values, variance in pairs]


def _layer_mean(term: Term, weights: Tensor) -> list[Tensor]:
    return [values.mean().clamp_min(SMALLEST) for values in term.values]


def _model_mean(term: Term, weights: Tensor) -> list[Tensor]:
    structures = sum(len(values) for values in term.values)
    total = sum((values.sum() for values in term.values[1:]), term.values[0].sum())
    return [(total / structures).clamp_min(SMALLEST)] * len(term.values)


def _learned(term: Term, weights: Tensor) -> list[Tensor]:
    means = _layer_mean(term, weights)
    layers = range(len(means))
    return [means[i] * relative_variance(term.by_sample(i), weights) for i in layers]


def relative_variance(scores: Tensor, weights: Tensor) -> Tensor:
    """The learned sigma^2 of `scores` [R, units], with sample `weights` [R, 1]; see the module."""
    share = weights / weights.sum().clamp_min(SMALLEST)
    scaled = scores / (scores * share).sum(0).mean().clamp_min(SMALLEST)
    residual = scaled - (scaled * share).sum(0)
    return (residual.square() * share).sum(0).mean().clamp_min(LEAST_VARIANCE)


SIGMA_SQUARED: dict[str, Callable[[Term, Tensor], list[Tensor]]] = {
    "layer_mean": _layer_mean,
    "model_mean": _model_mean,
    "learned": _learned,
}
"""Value of `search.fusion` -> sigma^2 by layer, up to a common factor, in the units of the
values."""
