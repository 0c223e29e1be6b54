"""From the importance table to one score a structure: which samples, which metrics, how mixed.

A trial of the search is a `Recipe`. Scoring one adds rows of the table; no model is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from adapruner.config import FixedMetric
from adapruner.importance import KINDS, ImportanceTable

ALIGNMENT = {"fisher": (1e5, 1e6, 1e7), "coarse": (1e-2, 1e-3), "magnitude": (1e-4,)}
"""The paper's alignment factors, which bring the metrics to one order of magnitude. Its three sets
are read here as belonging to the second-order, the vector-wise and the element-wise term: the
smallest statistic has the largest factors."""


class Recipe(BaseModel):
    """How one trial scores structures.

    `metric: mix` is alpha_coarse * coarse + (1 - alpha_coarse) * (alpha_fine * magnitude +
    (1 - alpha_fine) * second), where second = alpha_token * token + (1 - alpha_token) * fisher.
    Each is summed over `samples` and brought to one scale: divided by its mean over the layer
    (`align` empty), or multiplied by the factors of `align`. (0, 0, 0) is Fisher, (1, _, _)
    vector-wise, (0, 1, _) element-wise importance, (0, 0, 1) the masks' Fisher information. With
    `shares`, one a source of the pool, each source's samples together weigh as much as its share.

    The other metrics take one score as it is; with w a weight, g_n its gradient of sample n, R the
    number of `samples`, X what goes into the projection W (down or output) and c a column of it:

    - `vector`, `element1`, `element2`, `mixed`: LLM-Pruner (arXiv 2305.11627, section 3.2) as its
      code reads it (--taylor vectorize, param_first, param_second, param_mix): sums over all
      coupled projections of |sum w g|, sum |w g|, sum |w^2 F| and sum |w g - w^2 F / 2|, where
      g = sum_n g_n / R and F = sum_n g_n^2 / R; constant factors are left out where they change no
      order. The two equal vector parts of up and down both count, as there. `element1` and `mixed`
      are exact for the table's reference subset alone.
    - `fisher`: sum over samples of sum (w g_n)^2, as `mix` at (0, 0) but for its scale.
    - `wanda`: Wanda (arXiv 2306.11695) for structures, as FLAP's authors run it for comparison
      (arXiv 2312.11983): |X_c| * mean_i |W_ic|, with the norm over all tokens; of a head, the sum
      over its columns.
    - `flap`: FLAP's fluctuation score (arXiv 2312.11983, eq. 4): Var(X_c) * sum_i W_ic^2 over all
      tokens, standardised in each layer, so that it compares over layers; of a head, the sum over
      its columns, which is ranked within the layer alone. (Its code squares the scores of heads,
      its text does not; here they are not.)
    - `magnitude`: the sum of squares of the coupled weights, which ranks as their L2 norm does.
    - `random`: drawn by `seed`.

    Wanda and FLAP look at the projections down and output alone, so key and value score nothing.

    `width_profile` says how far the widths follow the layers' losses, see `profile`, from not at
    all (0: equal widths) to wholly (1); `protect` says how many
    first and last layers stay whole, where that is not as pruning.protect_first and _last say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Literal["mix"] | FixedMetric = "mix"
    samples: tuple[int, ...]
    seed: int = 0
    alpha_coarse: float = Field(0.0, ge=0, le=1)
    alpha_fine: float = Field(0.0, ge=0, le=1)
    alpha_token: float = Field(0.0, ge=0, le=1)
    shares: tuple[Annotated[float, Field(ge=0)], ...] = ()
    align: dict[Literal["coarse", "magnitude", "fisher"], float] = Field(default_factory=dict)
    width_profile: float = Field(0.0, ge=0, le=1)
    protect: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scores:
    """Scores by layer, higher is more important: channels [C], query heads [H], KV groups [G].

    A head's score is of its own rows and columns; a group's is of its key and value alone.
    `comparable` says that channels of different layers may be ranked together.
    """

    mlp: list[Tensor]
    heads: list[Tensor]
    groups: list[Tensor]
    comparable: bool = False


def score(table: ImportanceTable, recipe: Recipe) -> Scores:
    """The scores that `recipe` gives the structures of `table`."""
    parts = {kind: _METRICS[recipe.metric](table, recipe, kind) for kind in KINDS}
    comparable = recipe.metric == "flap"
    return Scores(**parts, comparable=comparable)


def _mix(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    second = (1 - recipe.alpha_coarse) * (1 - recipe.alpha_fine)
    weights = {
        "coarse": recipe.alpha_coarse,
        "magnitude": (1 - recipe.alpha_coarse) * recipe.alpha_fine,
        "fisher": second * (1 - recipe.alpha_token),
        "token": second * recipe.alpha_token,
    }
    rows, of_row = torch.tensor(recipe.samples), _row_weights(table, recipe)
    layers = []
    for index in range(len(table.fisher[kind])):
        total = torch.zeros(())
        for metric, weight in weights.items():
            if not weight:
                continue
            values = _summed(table, metric, kind, index, rows, of_row)
            scale = recipe.align.get(metric) if recipe.align else 1 / values.mean().clamp_min(1e-30)  # type: ignore[call-overload]
            total = total + weight * scale * values
        layers.append(total)
    return layers


def _row_weights(table: ImportanceTable, recipe: Recipe) -> Tensor:
    """[N, 1]: what each of the recipe's samples counts."""
    sources = [table.source[n] for n in recipe.samples]
    each = [recipe.shares[s] / sources.count(s) if recipe.shares else 1.0 for s in sources]
    return torch.tensor(each).unsqueeze(1)


def _summed(
    table: ImportanceTable, metric: str, kind: str, layer: int, rows: Tensor, of_row: Tensor
) -> Tensor:
    if metric == "coarse":
        return _coarse(table, kind, layer, rows, of_row, twice=False)
    if metric == "token":
        part = {"mlp": "down", "heads": "output"}.get(kind)
        found = table.token[part][layer] if part else torch.zeros_like(table.fisher[kind][layer])
    else:
        found = getattr(table, metric)[kind][layer]
    total: Tensor = (found[rows] * of_row).sum(0)
    return total


def _coarse(
    table: ImportanceTable, kind: str, layer: int, rows: Tensor, of_row: Tensor, *, twice: bool
) -> Tensor:
    """|sum over samples| of the coupled projections, summed; equal parts once or `twice`."""

    def part(name: str) -> Tensor:
        return (table.coarse[name][layer][rows] * of_row).sum(0)

    if kind == "mlp":
        return part("gate").abs() + (2 if twice else 1) * part("down").abs()
    query, output = part("query"), part("output")
    if kind == "heads":
        return query.abs() + output.abs()
    if not twice:
        return torch.zeros(table.fisher["groups"][layer].shape[1])
    groups = table.fisher["groups"][layer].shape[1]
    return query.view(groups, -1).sum(1).abs() + output.view(groups, -1).sum(1).abs()


def _vector(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    rows, once = torch.tensor(recipe.samples), torch.ones(len(recipe.samples), 1)
    return [_coarse(table, kind, i, rows, once, twice=True) for i in range(len(table.fisher[kind]))]


def _exact(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    if recipe.samples != table.reference:
        raise ValueError(
            f"the element-wise score is exact for the reference subset {table.reference} alone, "
            f"not for {recipe.samples}"
        )
    return (table.element if recipe.metric == "element1" else table.mixed)[kind]


def _fisher(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    return [layer[torch.tensor(recipe.samples)].sum(0) for layer in table.fisher[kind]]


def _wanda(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    def column_scores(part: str, layer: int) -> Tensor:
        squares = table.input_square[part][layer][torch.tensor(recipe.samples)].sum(0)
        return squares.sqrt() * table.column_mean[part][layer]

    return _by_column(table, kind, column_scores)


def _flap(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    rows = torch.tensor(recipe.samples)
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


def _by_column(
    table: ImportanceTable, kind: str, column_scores: Callable[[str, int], Tensor]
) -> list[Tensor]:
    """The scores of the units of `kind` from those of the columns of down or output."""
    counts = [layer.shape[-1] for layer in table.element[kind]]
    if kind == "groups":
        return [torch.zeros(count) for count in counts]
    part = "down" if kind == "mlp" else "output"
    return [column_scores(part, i).view(count, -1).sum(1) for i, count in enumerate(counts)]


def _magnitude(table: ImportanceTable, _: Recipe, kind: str) -> list[Tensor]:
    return table.weight_square[kind]


def _random(table: ImportanceTable, recipe: Recipe, kind: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(KINDS) * recipe.seed + KINDS.index(kind))
    return [torch.rand(len(layer), generator=generator) for layer in table.element[kind]]


_METRICS: dict[str, Callable[[ImportanceTable, Recipe, str], list[Tensor]]] = {
    "mix": _mix,
    "vector": _vector,
    "element1": _exact,
    "element2": _fisher,
    "mixed": _exact,
    "fisher": _fisher,
    "wanda": _wanda,
    "flap": _flap,
    "magnitude": _magnitude,
    "random": _random,
}
