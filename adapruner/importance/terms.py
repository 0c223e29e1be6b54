"""The terms that a score is fused from: a metric's scores, and those of each sample alone.

Scores are sums over the coupled projections of a structure. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from adapruner.importance.recipe import Recipe
    from adapruner.importance.table import ImportanceTable


REFERENCE_GROUPS = ("element", "mixed")
"""Statistics of the reference subset alone."""

GRADIENT_GROUPS = ("magnitude", "fisher", *REFERENCE_GROUPS)
"""Statistics that cost a gradient of every weight for every sample: tables have them by request."""


class Term(NamedTuple):
    """A metric for one kind of structures.

    `values` are its scores, [units] by layer; `by_sample` gives a layer's scores of each of the
    recipe's R samples alone, [R, units]; `share` weighs the term; `name` is that of its alignment
    factor.
    """

    name: str
    share: float
    values: list[Tensor]
    by_sample: Callable[[int], Tensor]


def statistic_term(
    table: ImportanceTable, recipe: Recipe, kind: str, statistic: str, share: float = 1.0
) -> Term:
    """The sum of a statistic over the recipe's samples, with the samples' weights.

    `statistic` is coarse, magnitude, fisher or token.
    """
    rows, weights = list(recipe.samples), sample_weights(table, recipe)
    layers = range(len(table.units(kind)))
    if statistic == "coarse":
        values = [coarse(table, kind, i, rows, weights, count_twice=False) for i in layers]
    else:
        values = [(_additive(table, statistic, kind, i)[rows] * weights).sum(0) for i in layers]
    return Term(
        statistic, share, values, lambda layer: _of_samples(table, statistic, kind, layer, rows)
    )


def saap_terms(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Term]:
    """SAAP's two scores: vector-wise over the recipe's samples, element-wise over the reference.

    The element-wise score of one sample is `magnitude`: its second-order term is left out.
    """
    rows, layers = list(recipe.samples), range(len(table.units(kind)))
    vector = Term(
        "coarse",
        1.0,
        [second_order(table, kind, i, rows) for i in layers],
        lambda layer: _second_order_of_samples(table, kind, layer, rows),
    )
    element = Term(
        "magnitude", 1.0, table.mixed[kind], lambda layer: table.magnitude[kind][layer][rows]
    )
    return [vector, element]


def sample_weights(table: ImportanceTable, recipe: Recipe) -> Tensor:
    """[R, 1]: the weight of each of the recipe's samples."""
    domains = [table.domain[n] for n in recipe.samples]
    weights = [recipe.shares[d] / domains.count(d) if recipe.shares else 1.0 for d in domains]
    return table.coarse["gate"][0].new_tensor(weights).unsqueeze(1)


def coarse(
    table: ImportanceTable,
    kind: str,
    layer: int,
    rows: list[int],
    weights: Tensor,
    *,
    count_twice: bool,
) -> Tensor:
    """[units]: sum over the coupled projections of |weighted sum over `rows` of sum w g_n|.

    `weights` is [len(rows), 1]. Projections with equal sums (up and down; value and output; key and
    query) count once or, as in LLM-Pruner's code, twice.
    """
    vectors = _vectors(table, kind, layer, rows, count_twice)
    return _total([count * (sums * weights).sum(0).abs() for count, sums in vectors])


def second_order(table: ImportanceTable, kind: str, layer: int, rows: list[int]) -> Tensor:
    """[units]: sum over the coupled projections of |w^T g - w^T H w / 2|, over the samples `rows`.

    With c_n = w^T g_n, w^T g is the mean of c_n. The mean outer product of the samples' gradients
    stands for the Hessian H, so that w^T H w is the mean of c_n^2, exactly. Equal projections count
    twice, as in LLM-Pruner's code.
    """
    vectors = _vectors(table, kind, layer, rows, count_twice=True)
    return _total([n * (c.mean(0) - c.square().mean(0) / 2).abs() for n, c in vectors])


def _second_order_of_samples(
    table: ImportanceTable, kind: str, layer: int, rows: list[int]
) -> Tensor:
    """[R, units]: `second_order` of each sample alone."""
    vectors = _vectors(table, kind, layer, rows, count_twice=True)
    return _total([n * (c - c.square() / 2).abs() for n, c in vectors])


def _of_samples(
    table: ImportanceTable, statistic: str, kind: str, layer: int, rows: list[int]
) -> Tensor:
    """[R, units]: a statistic of each sample alone."""
    if statistic != "coarse":
        return _additive(table, statistic, kind, layer)[rows]
    vectors = _vectors(table, kind, layer, rows, count_twice=False)
    return _total([count * sums.abs() for count, sums in vectors])


def _additive(table: ImportanceTable, statistic: str, kind: str, layer: int) -> Tensor:
    """[N, units]: a statistic that is a sum over samples. Keys and values have no token one."""
    if statistic != "token":
        of_layer: Tensor = getattr(table, statistic)[kind][layer]
        return of_layer
    part = {"mlp": "down", "heads": "output"}.get(kind)
    if part is None:
        return table.coarse["gate"][0].new_zeros(table.samples, table.units(kind)[layer])
    return table.token[part][layer]


def _vectors(
    table: ImportanceTable, kind: str, layer: int, rows: list[int], count_twice: bool
) -> list[tuple[int, Tensor]]:
    """Times that it counts and signed sums w g_n, [R, units], of each projection that differs.

    Without `count_twice`, those of keys and values count as part of the heads' alone.
    """

    def sums(part: str) -> Tensor:
        return table.coarse[part][layer][rows]

    if kind == "mlp":
        return [(1, sums("gate")), (2 if count_twice else 1, sums("down"))]
    heads = [sums("query"), sums("output")]
    if kind == "heads":
        return [(1, of_heads) for of_heads in heads]
    groups = table.units("groups")[layer]
    count = 1 if count_twice else 0
    return [(count, of_heads.view(len(rows), groups, -1).sum(2)) for of_heads in heads]


def _total(parts: list[Tensor]) -> Tensor:
    first, *others = parts
    return sum(others, first)
