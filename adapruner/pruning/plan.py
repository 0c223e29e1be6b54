"""The pruning plan, as JSON to read and edit: `allocation` makes it, `surgery` applies it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from adapruner.config.pruning import Layout, RatioBase
from adapruner.errors import UserError
from adapruner.files import Artifact, Record, write_json
from adapruner.models.residual import SUBSETS, subset_params
from adapruner.models.structures import LayerWidths, Structures
from adapruner.pruning.costs.scale import TargetCost

if TYPE_CHECKING:  # who reads a plan needs no module of Transformers
    from adapruner.pruning.target import PruningTarget


class ResidualPlan(Record):
    """Dimensions of the residual stream, of `size`, that a layer's blocks read and write."""

    size: int
    attention_in: str
    attention_out: str
    mlp_in: str
    mlp_out: str

    @property
    def subsets(self) -> dict[str, list[int]]:
        """The dimensions, ascending, by the names of the fields."""
        return {name: parse_ranges(getattr(self, name)) for name in SUBSETS}


class LayerPlan(Record):
    """Indices that one layer keeps, as inclusive ranges: `0-11,13,15-40`.

    With experts of C channels, channel c of expert e has the index e C + c. `residual` is set, and
    part of the JSON, in the layout residual_subsets alone.
    """

    mlp_channels: str
    query_heads: str
    residual: ResidualPlan | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if self.residual is None:
            values.pop("residual")
        return values

    def channels(self) -> list[int]:
        """The kept MLP channels, ascending."""
        return parse_ranges(self.mlp_channels)

    def heads(self) -> list[int]:
        """The kept query heads, ascending."""
        return parse_ranges(self.query_heads)


class Ratio(Record):
    """Shares removed, in [0, 1): `requested` of `of`, and what is achieved of the parameters.

    `cost` is the cost of a target that is no number of parameters; other plans have none.
    """

    requested: float
    of: RatioBase
    achieved_all: float
    achieved_blocks: float
    cost: TargetCost | None = None

    @property
    def achieved(self) -> float:
        """The share achieved of what was requested, by the plan's costs."""
        if self.cost is not None:
            return 1 - self.cost.pruned / self.cost.dense
        return self.achieved_all if self.of == "all" else self.achieved_blocks

    @model_serializer(mode="wrap")
    def _without_no_cost(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if value is not None}


class Params(Record):
    """Number of parameters, tied embeddings counted once."""

    dense: int
    pruned: int


class Update(Record):
    """How the weights are updated after the cut, where reconstruction.method uses the text.

    `shares` are the weights of the pool's domains; where empty, every sample has the same weight.
    `ridge` is the regularization; where it is None, it is chosen for each layer.
    """

    shares: tuple[float, ...] = ()
    ridge: float | None = None

    def sample_weights(self, domain: Tensor) -> Tensor:
        """The weight of each sample, float32 [U] with the mean 1; `domain` [U] are their domains.

        Raises UserError when there is not one share for each domain.
        """
        if not self.shares:
            return torch.ones(len(domain))
        sizes = torch.bincount(domain, minlength=len(self.shares))
        if len(sizes) > len(self.shares) or not sum(self.shares):
            raise UserError(
                f"the plan's update has shares {list(self.shares)}: expected one for each of the "
                f"pool's {len(sizes)} domains, not all 0; edit the plan or use its own pool"
            )
        weights = torch.tensor(self.shares) / sizes.clamp_min(1)
        weights = weights[domain.long()]
        return weights / weights.mean()


class Sparsity(Record):
    """Zeros in the weights of all projections, where no structure is removed.

    Of each 4 consecutive inputs the 2 weights with the higher `score` are kept; `zeros` is the
    number of the others.
    """

    pattern: Literal["2:4"]
    score: Literal["magnitude", "wanda"]
    zeros: int


class PruningPlan(Artifact):
    """What each layer of a dense model keeps, and how the plan was decided."""

    FILE: ClassVar[str] = "plan.json"

    format: Literal[1] = 1
    model_type: str
    layout: Layout
    layers: tuple[LayerPlan, ...]
    dense: tuple[dict[str, int], ...]
    protected: tuple[int, ...]
    ratio: Ratio
    params: Params
    update: Update = Update()
    sparsity: Sparsity | None = None
    provenance: dict[str, Any]

    @property
    def has_subsets(self) -> bool:
        """Whether layers keep subsets of the residual stream."""
        return any(layer.residual is not None for layer in self.layers)

    def write(self, directory: Path) -> None:
        """Writes `plan.json` to `directory`, which exists."""
        self.write_file(directory / self.FILE)

    def write_file(self, file: Path) -> None:
        """Writes the plan under any file name; equal plans give equal bytes."""
        unused = {"sparsity"} if self.sparsity is None else set()
        write_json(file, self.model_dump(mode="json", exclude=unused), sort_keys=True)


def make_plan(
    target: PruningTarget,
    keep: Sequence[tuple[Sequence[int], Sequence[int]]],
    provenance: dict[str, Any],
) -> PruningPlan:
    """The plan that keeps, of layer i, the channels `keep[i][0]` and the heads `keep[i][1]`."""
    layers = tuple(
        LayerPlan(mlp_channels=format_ranges(c), query_heads=format_ranges(h)) for c, h in keep
    )
    return plan_of_layers(target, layers, provenance)


def plan_of_layers(
    target: PruningTarget, layers: tuple[LayerPlan, ...], provenance: dict[str, Any]
) -> PruningPlan:
    """The plan of these layers, with the parameters that it removes."""
    structures, pruning = target.structures, target.pruning
    removed = sum(
        params_removed(structures, dense, plan)
        for dense, plan in zip(structures.layers, layers, strict=True)
    )
    return PruningPlan(
        model_type=structures.family.model_type,
        layout=pruning.layout,
        layers=layers,
        dense=tuple(vars(widths) for widths in structures.layers),
        protected=target.protected,
        ratio=Ratio(
            requested=pruning.ratio,
            of=pruning.ratio_of,
            achieved_all=removed / structures.total_params,
            achieved_blocks=removed / structures.block_params,
            cost=_target_cost(target, layers),
        ),
        params=Params(dense=structures.total_params, pruned=structures.total_params - removed),
        provenance=provenance,
    )


def _target_cost(target: PruningTarget, layers: Sequence[LayerPlan]) -> TargetCost | None:
    costs = target.costs
    if costs.scale is None:
        return None
    pairs = zip(target.structures.layers, layers, strict=True)
    removed = target.removed([kept_widths(dense, plan) for dense, plan in pairs])
    pruned = round(costs.base - removed)
    return TargetCost(**costs.scale.model_dump(), dense=costs.base, pruned=pruned)


def params_removed(structures: Structures, dense: LayerWidths, plan: LayerPlan) -> int:
    """Parameters of one layer that a plan does not keep. Raises UserError as `kept_widths`."""
    kept = kept_widths(dense, plan)
    if plan.residual is None:
        return structures.layer_params(dense) - structures.layer_params(kept)
    hidden = structures.hidden_size
    sizes = {name: len(subset) for name, subset in plan.residual.subsets.items()}
    whole = subset_params(structures, dense, dense.mlp_channels, dict.fromkeys(sizes, hidden))
    return whole - subset_params(structures, dense, kept.mlp_channels, sizes)


def kept_widths(dense: LayerWidths, plan: LayerPlan) -> LayerWidths:
    """The widths of a layer after the cut.

    Raises UserError when an index is out of range, and when KV groups would keep different numbers
    of heads or experts different numbers of channels.
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
    groups = _equal_shares(heads, dense.heads_per_group, ("query heads", "KV group"))
    experts = _equal_shares(channels, dense.mlp_width, ("channels", "expert"))
    return LayerWidths(len(channels), len(heads), groups, experts if dense.experts else 0)


def _equal_shares(kept: list[int], size: int, names: tuple[str, str]) -> int:
    """Blocks of `size` indices that any of the `kept` ones are in, the same number in each.

    Raises UserError, with the names of the indices and blocks, for other numbers.
    """
    counts = Counter(index // size for index in kept)
    if len(set(counts.values())) != 1:
        raise UserError(
            f"a plan must keep the same number of {names[0]} in every {names[1]} that it keeps; "
            f"it keeps {[counts[block] for block in range(max(counts) + 1)]}"
        )
    return len(counts)


def kept_groups(dense: LayerWidths, heads: Sequence[int]) -> list[int]:
    """The KV groups of the kept query heads, ascending."""
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
    """The ascending indices of inclusive ranges: "0-2,5" -> [0, 1, 2, 5]. Raises UserError."""
    return list(_parsed(text))


@lru_cache(maxsize=4096)  # a trial parses the same ranges for every batch
def _parsed(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?", part) for part in parts):
        raise UserError(f"'{text[:60]}' is not a list of ranges such as '0-11,13'")
    bounds = [[int(bound) for bound in part.split("-")] for part in parts]
    if sum(bound[-1] - bound[0] + 1 for bound in bounds) > 1 << 24:
        raise UserError(f"the ranges '{text[:60]}' are more indices than any layer has")
    indices = [index for bound in bounds for index in range(bound[0], bound[-1] + 1)]
    if any(b[-1] < b[0] for b in bounds) or indices != sorted(set(indices)):
        raise UserError(f"the ranges '{text[:60]}' must ascend and not overlap")
    return tuple(indices)
