"""Fusion by hand, and sigma as the minimum of its objective."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adapruner.importance.fusion import SIGMA_SQUARED, fuse
from adapruner.importance.recipe import Recipe
from adapruner.importance.terms import Term

ONES = torch.ones(2, 1)


def term(name: str, by_sample: list[list[list[float]]], share: float = 1.0) -> Term:
    """A metric of the samples' scores `by_sample`, [layers, R, units]; its values are the sums."""
    layers = [torch.tensor(of_layer, dtype=torch.float32) for of_layer in by_sample]
    return Term(name, share, [x.sum(0) for x in layers], lambda layer: layers[layer])


FIRST = term("coarse", [[[1, 3], [3, 1]], [[10, 10], [20, 40]]])  # sums 4, 4 and 30, 50
SECOND = term("magnitude", [[[2, 4], [2, 8]], [[1, 1], [1, 1]]])  # sums 4, 12 and 2, 2
FACTORS = {"coarse": 0.01, "magnitude": 0.5}


def descend(objective: Any, *start: Tensor) -> None:
    """Changes the tensors `start` to the minimum of `objective()`, by gradient descent."""
    optimizer = torch.optim.Adam(start, lr=0.05)
    for _ in range(3000):
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()


def scores_of(seed: int, *shape: int) -> Tensor:
    """Skewed, positive and noisy, as scores of samples are; float64."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(shape[-1], generator=generator).double().square()
    return means * torch.rand(shape, generator=generator).double().exp()


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        # by layer: 4/4 + 4/8, 4/4 + 12/8; 30/40 + 2/2, 50/40 + 2/2
        ("layer_mean", [[1.5, 2.5], [1.75, 2.25]]),
        # means over the model: 22 and 5
        ("model_mean", [[4 / 22 + 4 / 5, 4 / 22 + 12 / 5], [30 / 22 + 2 / 5, 50 / 22 + 2 / 5]]),
        # 0.01 and 0.5
        ("aligned", [[0.04 + 2, 0.04 + 6], [0.3 + 1, 0.5 + 1]]),
    ],
)
def test_fused_scores_by_hand(fusion: Any, expected: list[list[float]]) -> None:
    recipe = Recipe(samples=(0, 1), fusion=fusion, align=FACTORS)
    got = fuse([FIRST, SECOND], recipe, ONES)
    torch.testing.assert_close(torch.stack(got), torch.tensor(expected))


def test_learned_fusion_by_hand() -> None:
    recipe = Recipe(samples=(0, 1), fusion="learned")
    fused = fuse([FIRST, SECOND], recipe, ONES)[0]
    # FIRST over its mean 2: 0.5, 1.5; 1.5, 0.5. All are 0.5 from their units' means: variance 1/4.
    # SECOND over its mean 4: 0.5, 1; 0.5, 2. Means 0.5, 1.5; distances 0, 0.5: variance 1/8.
    expected = [1 / 0.25 + 0.5 / 0.125, 1 / 0.25 + 1.5 / 0.125]
    torch.testing.assert_close(fused, torch.tensor(expected))


def test_shares_weigh_terms_and_samples() -> None:
    recipe = Recipe(samples=(0, 1), fusion="learned")
    half = FIRST._replace(share=0.5)
    torch.testing.assert_close(fuse([half], recipe, ONES)[0], 0.5 * fuse([FIRST], recipe, ONES)[0])
    none = FIRST._replace(share=0.0)
    torch.testing.assert_close(fuse([none, SECOND], recipe, ONES), fuse([SECOND], recipe, ONES))
    twice = term("coarse", [[[1, 3], [1, 3], [3, 1]], [[10, 10], [10, 10], [20, 40]]])
    as_weight = SIGMA_SQUARED["learned"](FIRST, torch.tensor([[2.0], [1.0]]))
    by_copy = SIGMA_SQUARED["learned"](twice, torch.ones(3, 1))
    for index, (values, copied) in enumerate(zip(FIRST.values, twice.values, strict=True)):
        ratio = values.mean() / copied.mean()
        torch.testing.assert_close(as_weight[index], by_copy[index] * ratio)


def test_closed_form_is_the_minimum_of_the_published_objective_over_groups() -> None:
    importance = torch.stack([scores_of(seed, 40) for seed in (1, 2)]) * torch.tensor([[1.0], [7]])
    log_sigma = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)

    def objective() -> Tensor:
        return (importance / (2 * log_sigma.exp() ** 2) + log_sigma).sum(0).mean()

    descend(objective, log_sigma)
    found = log_sigma.detach().exp().square()
    for index, values in enumerate(importance):
        (closed,) = SIGMA_SQUARED["layer_mean"](Term("coarse", 1.0, [values], None), ONES)
        torch.testing.assert_close(closed, found[index, 0], rtol=1e-6, atol=0)


def test_order_is_that_of_the_published_formula() -> None:
    importance = [scores_of(seed, 40) for seed in (1, 2)]
    terms = [Term("coarse", 1.0, [values], None) for values in importance]
    (fused,) = fuse(terms, Recipe(samples=(0,)), ONES)
    means = [values.mean() for values in importance]
    pairs = zip(importance, means, strict=True)
    published = sum(x / (2 * mean) + mean.sqrt().log() for x, mean in pairs)
    assert torch.equal(fused.argsort(), published.argsort())


def test_gradient_descent_finds_the_learned_sigma() -> None:
    """Of the joint likelihood of two metrics, over the means of the structures and both sigmas."""
    samples = [scores_of(seed, 12, 30) for seed in (3, 4)]
    samples[1] = samples[1].square()
    scaled = torch.stack([x / x.mean() for x in samples])
    mean = torch.ones(2, 1, 30, dtype=torch.float64, requires_grad=True)
    log_sigma = torch.zeros(2, 1, 1, dtype=torch.float64, requires_grad=True)

    def negative_log_likelihood() -> Tensor:
        loss = (scaled - mean).square() / (2 * log_sigma.exp() ** 2) + log_sigma
        return loss.sum(0).mean()

    descend(negative_log_likelihood, mean, log_sigma)
    found = log_sigma.detach().exp().square().flatten()
    for index, x in enumerate(samples):
        metric = Term("coarse", 1.0, [x.sum(0)], lambda _, x=x: x)
        (learned,) = SIGMA_SQUARED["learned"](metric, torch.ones(12, 1, dtype=torch.float64))
        torch.testing.assert_close(learned / x.sum(0).mean(), found[index], rtol=1e-4, atol=0)
    assert found[1] > 1.5 * found[0], "the metric that differs more between samples counts less"


def test_one_sample_gives_the_closed_form_of_the_layer() -> None:
    of_one = [term("coarse", [[[1.0, 3.0]]]), term("magnitude", [[[2.0, 4.0]]])]
    learned, closed = (
        fuse(of_one, Recipe(samples=(0,), fusion=fusion), torch.ones(1, 1))[0]
        for fusion in ("learned", "layer_mean")
    )
    torch.testing.assert_close(learned / learned.sum(), closed / closed.sum())
