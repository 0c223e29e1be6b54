"""The pruning plan: which structures each layer keeps. Small, readable, editable JSON.

Deciding is separated from cutting: a plan is made by `allocation`, and `surgery` does what it says.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from adapruner.errors import UserError
from adapruner.models.structures import LayerWidths, Structures

FILE = "plan.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LayerPlan(_Frozen):
    """Indices that one layer keeps, as inclusive ranges: `0-11,13,15-40`."""

    mlp_channels: str
    query_heads: str

    def channels(self) -> list[int]:
        return parse_ranges(self.mlp_channels)

    def heads(self) -> list[int]:
        return parse_ranges(self.query_heads)


class Ratio(_Frozen):
    """Shares of parameters removed, in [0, 1)."""

    requested: float
    of: Literal["all", "blocks"]
    achieved_all: float
    achieved_blocks: float


class Params(_Frozen):
    """Parameters, tied embeddings once."""

    dense: int
    pruned: int


class PruningPlan(_Frozen):
    """What is kept of each layer of a dense model, and where the decision came from."""

    format: Literal[1] = 1
    model_type: str
    layout: Literal["per_layer", "uniform"]
    layers: tuple[LayerPlan, ...]
    dense: tuple[dict[str, int], ...]
    protected: tuple[int, ...]
    ratio: Ratio
    params: Params
    provenance: dict[str, Any]

    def write(self, file: Path) -> None:
        text = json.dumps(self.model_dump(), indent=1, sort_keys=True) + "\n"
        file.write_text(text, encoding="utf-8")


def read_plan(file: Path) -> PruningPlan:
    """The plan in a file. Raises UserError when it is not one."""
    try:
        return PruningPlan.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"plan '{file}' can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"'{file}' is not a pruning plan: '{where}': {first['msg']}") from None


def make_plan(
    structures: Structures,
    keep: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    layout: Literal["per_layer", "uniform"],
    protected: Sequence[int],
    requested: float,
    of: Literal["all", "blocks"],
    provenance: dict[str, Any],
) -> PruningPlan:
    """The plan that keeps, of layer i, the channels `keep[i][0]` and the heads `keep[i][1]`."""
    layers = tuple(
        LayerPlan(mlp_channels=format_ranges(c), query_heads=format_ranges(h)) for c, h in keep
    )
    removed = sum(
        structures.layer_params(dense) - structures.layer_params(kept_widths(dense, plan))
        for dense, plan in zip(structures.layers, layers, strict=True)
    )
    return PruningPlan(
        model_type=structures.family.model_type,
        layout=layout,
        layers=layers,
        dense=tuple(vars(widths) for widths in structures.layers),
        protected=tuple(protected),
        ratio=Ratio(
            requested=requested,
            of=of,
            achieved_all=removed / structures.total_params,
            achieved_blocks=removed / structures.block_params,
        ),
        params=Params(dense=structures.total_params, pruned=structures.total_params - removed),
        provenance=provenance,
    )


def kept_widths(dense: LayerWidths, plan: LayerPlan) -> LayerWidths:
    """The widths that a layer has after the plan.

    Raises UserError when an index is out of range or KV groups would keep different head counts.
    """
    channels, heads = plan.channels(), plan.heads()
    for what, kept, limit in (
        ("MLP channels", channels, dense.mlp_channels),
        ("query heads", heads, dense.query_heads),
    ):
        if not kept or kept[-1] >= limit:
            raise UserError(
                f"a plan must keep between 1 and {limit} {what}, by indices below {limit}"
            )
    by_group = [0] * dense.kv_groups
    for head in heads:
        by_group[head // dense.heads_per_group] += 1
    if len({count for count in by_group if count}) != 1:
        raise UserError(
            f"a plan must keep the same number of query heads in every KV group that it keeps; "
            f"it keeps {by_group}"
        )
    return LayerWidths(len(channels), len(heads), sum(count > 0 for count in by_group))


def kept_groups(dense: LayerWidths, heads: Sequence[int]) -> list[int]:
    """The KV groups that the kept query heads belong to, ascending."""
    return sorted({head // dense.heads_per_group for head in heads})


def format_ranges(indices: Sequence[int]) -> str:
    """Ascending indices as inclusive ranges: [0, 1, 2, 5] -> "0-2,5"."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def parse_ranges(text: str) -> list[int]:
    """The ascending indices that inclusive ranges spell: "0-2,5" -> [0, 1, 2, 5]."""
    return list(_parsed(text))


@functools.lru_cache(maxsize=4096)  # a trial asks for the same ranges at every batch
def _parsed(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(re.fullmatch(r"\d+(-\d+)?", part) for part in parts):
        raise UserError(f"'{text[:60]}' is not a list of ranges such as '0-11,13'")
    bounds = [[int(bound) for bound in part.split("-")] for part in parts]
    indices = [index for bound in bounds for index in range(bound[0], bound[-1] + 1)]
    if any(b[-1] < b[0] for b in bounds) or indices != sorted(set(indices)):
        raise UserError(f"the ranges '{text[:60]}' must ascend and not overlap")
    return tuple(indices)
