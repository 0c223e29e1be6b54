"""The importance metrics: one registered function each.

A metric takes the importance table, a recipe and a kind of structure (mlp, heads or groups), and
returns one tensor per layer: the scores of its units of that kind, higher is more important. In the
formulas w is a weight, g_n its gradient of sample n, R the number of samples, X the input of the
projection W (down or output) and c a column of it.

LLM-Pruner's scores (arXiv 2305.11627, section 3.2) are implemented as its code computes them: sums
over all coupled projections, where the equal vector parts of up and down both count. Constant
factors that change no order are left out.

This module imports no torch, so that the configuration can list the metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from adapruner.importance.fusion import fuse
from adapruner.importance.terms import Term, coarse, saap_terms, statistic_term

if TYPE_CHECKING:
    from torch import Tensor

    from adapruner.importance.recipe import Recipe
    from adapruner.importance.table import ImportanceTable

Function = Callable[["ImportanceTable", "Recipe", str], "list[Tensor]"]
Terms = Callable[["ImportanceTable", "Recipe", str], "list[Term]"]


@dataclass(frozen=True)
class Needs:
    """What a metric is computed from.

    `samples`: the whole calibration pool, the random reference subset, both, or none. `statistics`:
    the groups of the importance table that it reads, and `of_samples` those that its scores of
    single samples are computed from, where they are others. `comparable`: scores of MLP channels in
    different layers can be ranked together. `seed`: the scores depend on the recipe's seed.
    """

    samples: Literal["pool", "reference", "both", "none"] = "pool"
    statistics: tuple[str, ...] = ()
    of_samples: tuple[str, ...] = ()
    comparable: bool = False
    seed: bool = False

    @property
    def reference(self) -> bool:
        """Whether the scores depend on the draw of the reference subset."""
        return self.samples in ("reference", "both")


@dataclass(frozen=True)
class Metric:
    """A registered metric. `preset`: the method that uses it alone, with `reconstruction`.

    `terms`: its scores of single samples, for the importance fluctuation of a layer.
    """

    function: Function
    summary: str
    needs: Needs
    preset: str | None
    reconstruction: str
    terms: Terms | None

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the seed, beyond the draw of the pool."""
        return self.needs.seed or self.needs.reference


METRICS: dict[str, Metric] = {}
"""Name -> metric, in the order of registration."""


def metric(
    name: str,
    summary: str,
    needs: Needs,
    preset: str | None = None,
    reconstruction: str = "none",
    terms: Terms | None = None,
) -> Callable[[Function], Function]:
    """Registers a function as the metric `name`.

    With a `preset` name, it is a method as well, with that reconstruction after the cut.
    """

    def register(function: Function) -> Function:
        METRICS[name] = Metric(function, summary, needs, preset, reconstruction, terms)
        return function

    return register


def _alone(statistic: str) -> Terms:
    """The samples' scores of a metric that are those of one statistic."""
    return lambda table, recipe, kind: [statistic_term(table, recipe, kind, statistic)]


@metric(
    "fisher",
    "sum of squared weight * gradient over the whole pool",
    Needs(statistics=("fisher",)),
    preset="fisher",
    terms=_alone("fisher"),
)
def fisher(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """sum_n sum (w g_n)^2: second order, with the Fisher information in place of the Hessian."""
    return [layer[list(recipe.samples)].sum(0) for layer in table.fisher[kind]]


@metric(
    "token",
    "Fisher information of masks, a token at a time: no weight gradients (arXiv 2204.09656)",
    Needs(statistics=("token",)),
    preset="mask-fisher",
    terms=_alone("token"),
)
def token(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """sum_n sum_t (sum_c X_tc dL_n/dX_tc)^2, over a structure's columns c: the Fisher information
    of a mask on it, of tokens in place of samples. Keys and values score nothing."""
    return statistic_term(table, recipe, kind, "token").values


@metric(
    "flap",
    "fluctuation score, adaptive widths, bias compensation (arXiv 2312.11983)",
    Needs(statistics=("input_sum", "input_square", "column_square"), comparable=True),
    preset="flap",
    reconstruction="bias",
)
def flap(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """FLAP's fluctuation score (arXiv 2312.11983, eq. 4): Var(X_c) * sum_i W_ic^2 over all tokens.

    Standardized in each layer, so that channels compare across layers. The score of a head is the
    sum over its columns and is ranked within the layer. (The authors' code squares the scores of
    heads, their text does not; here they are not squared.) Keys and values score nothing.
    """
    rows = list(recipe.samples)
    tokens = len(rows) * table.length

    def column_scores(part: str, layer: int) -> Tensor:
        mean = table.input_sum[part][layer][rows].double().sum(0) / tokens
        square = table.input_square[part][layer][rows].double().sum(0) / tokens
        variance = (square - mean.square()).clamp_min(0) * tokens / (tokens - 1)
        return (variance * table.column_square[part][layer]).float()

    layers = _by_column(table, kind, column_scores)
    if kind != "mlp":
        return layers
    return [(layer - layer.mean()) / layer.std().clamp_min(1e-30) for layer in layers]


@metric(
    "wanda",
    "|weight| * norm of its input (arXiv 2306.11695), by structure",
    Needs(statistics=("input_square", "column_mean")),
    preset="wanda-sp",
)
def wanda(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """Wanda (arXiv 2306.11695) for structures, as FLAP's authors run it (arXiv 2312.11983).

    |X_c| * mean_i |W_ic|, with the norm over all tokens; of a head, the sum over its columns. Keys
    and values score nothing.
    """
    rows = list(recipe.samples)

    def column_scores(part: str, layer: int) -> Tensor:
        squares = table.input_square[part][layer][rows].sum(0)
        return squares.sqrt() * table.column_mean[part][layer]

    return _by_column(table, kind, column_scores)


@metric(
    "vector",
    "LLM-Pruner, vector-wise, random samples (arXiv 2305.11627)",
    Needs("reference", ("coarse",)),
    preset="llm-pruner-vector",
    terms=_alone("coarse"),
)
def vector(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """LLM-Pruner's vector-wise score (--taylor vectorize): sum over projections of |sum w g|."""
    rows = list(recipe.samples)
    weights = table.coarse["gate"][0].new_ones(len(rows), 1)
    layers = range(len(table.units(kind)))
    return [coarse(table, kind, i, rows, weights, count_twice=True) for i in layers]


@metric(
    "element1",
    "LLM-Pruner, element-wise of first order, random samples",
    Needs("reference", ("element",), of_samples=("magnitude",)),
    preset="llm-pruner-element1",
    terms=_alone("magnitude"),
)
def element1(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """LLM-Pruner's element-wise score of first order (param_first): sum |w g|, g = sum_n g_n / R.

    Exact for the table's reference subset alone. Raises ValueError for other samples.
    """
    return _of_reference(table, recipe, table.element[kind])


@metric(
    "element2",
    "LLM-Pruner, element-wise of second order, random samples",
    Needs("reference", ("fisher",)),
    preset="llm-pruner-element2",
    terms=_alone("fisher"),
)
def element2(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """LLM-Pruner's element-wise score of second order (param_second): sum |w^2 F|, with
    F = sum_n g_n^2 / R. It orders structures as `fisher` does, on the reference subset."""
    return fisher(table, recipe, kind)


@metric(
    "mixed",
    "LLM-Pruner, element-wise of both orders, random samples",
    Needs("reference", ("mixed",), of_samples=("magnitude",)),
    preset="llm-pruner-mixed",
    terms=_alone("magnitude"),
)
def mixed(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """LLM-Pruner's element-wise score of both orders (param_mix): sum |w g - w^2 F / 2|.

    Exact for the table's reference subset alone. Raises ValueError for other samples.
    """
    return _of_reference(table, recipe, table.mixed[kind])


@metric(
    "saap",
    "SAAP: vector-wise and element-wise second-order scores, fused (arXiv 2412.15127)",
    Needs("both", ("coarse", "mixed", "magnitude")),
    terms=saap_terms,
)
def saap(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """SAAP's score: sum_v |w_v^T g - w_v^T H w_v / 2| over the coupled projections v, over the
    pool, and sum |w g - w^2 F / 2|, over the reference subset, fused by `search.fusion`.

    g is the mean of g_n, H the mean of g_n g_n^T and F that of g_n^2. See `fusion`.
    """
    weights = table.coarse["gate"][0].new_ones(len(recipe.samples), 1)
    return fuse(saap_terms(table, recipe, kind), recipe, weights)


@metric(
    "magnitude",
    "L2 norm of the coupled weights",
    Needs("none", ("weight_square",)),
    preset="magnitude",
)
def magnitude(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """The sum of squares of the coupled weights, which orders structures as their L2 norm does."""
    return table.weight_square[kind]


@metric(
    "random",
    "structures drawn at random with the seed",
    Needs("none", seed=True),
    preset="random",
)
def random(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    """Uniform random numbers, seeded by the recipe's seed and the kind of structure."""
    import torch

    from adapruner.importance.table import KINDS

    generator = torch.Generator().manual_seed(len(KINDS) * recipe.seed + KINDS.index(kind))
    return [torch.rand(units, generator=generator) for units in table.units(kind)]


def _of_reference(table: ImportanceTable, recipe: Recipe, scores: list[Tensor]) -> list[Tensor]:
    if recipe.samples != table.reference:
        raise ValueError(
            f"the element-wise score is exact for the reference subset {table.reference} alone, "
            f"not for {recipe.samples}"
        )
    return scores


def _by_column(
    table: ImportanceTable, kind: str, column_scores: Callable[[str, int], Tensor]
) -> list[Tensor]:
    """The scores of the units of `kind` from those of the columns of down or output."""
    layers = table.units(kind)
    if kind == "groups":
        return [table.coarse["gate"][0].new_zeros(units) for units in layers]
    part = "down" if kind == "mlp" else "output"
    return [column_scores(part, i).view(units, -1).sum(1) for i, units in enumerate(layers)]
