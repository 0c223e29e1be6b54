"""The costs that a ratio can be a share of, as functions of a layer's widths.

Allocation, reachability and the plan count in these costs alone, whichever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from adapruner.config import PruningConfig
from adapruner.config.pruning import RatioBase
from adapruner.efficiency.cost import group_kv_bytes, kv_bytes
from adapruner.efficiency.latency_table import LatencyTable, Part
from adapruner.errors import UserError
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import LayerWidths, Structures
from adapruner.pruning.costs.scale import CostScale

DEFAULT_CONTEXT = {"memory": 4096, "latency": 256}
"""Tokens by `pruning.ratio_of`, where the settings and the model's context allow them."""


@dataclass(frozen=True)
class CostInputs:
    """What costs depend on beside structures and settings; parameters depend on none of it.

    `dtype` is the type that weights are stored in, `max_context` the model's context, and
    `latency` the table of this model.
    """

    dtype: torch.dtype | None = None
    max_context: int | None = None
    latency: LatencyTable | None = None


FROM_STRUCTURES = CostInputs()
"""For costs that are numbers of parameters."""


@dataclass(frozen=True)
class Costs:
    """The cost of each layer by its widths; `base` is what the ratio is a share of.

    `of_mlp(i, channels)` is the cost of the MLP of layer i, also of a fraction of a channel, and
    `of_others(i, widths)` that of all other structures. `scale` is None for parameters.
    """

    base: int
    of_mlp: Callable[[int, float], float]
    of_others: Callable[[int, LayerWidths], float]
    scale: CostScale | None = None

    def of_layer(self, index: int, widths: LayerWidths) -> float:
        """The cost of the structures of layer `index` with these widths."""
        return self.of_mlp(index, widths.mlp_channels) + self.of_others(index, widths)


def costs_of(structures: Structures, pruning: PruningConfig, inputs: CostInputs) -> Costs:
    """The costs that `pruning.ratio` is a share of.

    Raises UserError where `inputs` lack what they depend on.
    """
    return _COSTS[pruning.ratio_of](structures, pruning, inputs)


def read_inputs(checkpoint: Path, latency: Path | None = None) -> CostInputs:
    """The inputs of a checkpoint, with the table in the directory `latency` if it has one."""
    table = None
    if latency is not None and LatencyTable.exists(latency):
        table = LatencyTable.read(latency)
    return CostInputs(ckpt.stored_dtype(checkpoint), max_context_of(checkpoint), table)


def max_context_of(checkpoint: Path) -> int | None:
    """The number of positions that a checkpoint's config names, if it does."""
    limit = getattr(ckpt.read_config(checkpoint), "max_position_embeddings", None)
    return None if limit is None else int(limit)


def context_of(pruning: PruningConfig, max_context: int | None) -> int:
    """Tokens of the sequence whose memory or time counts.

    Raises UserError where the settings name more than the model's context.
    """
    tokens = pruning.context or DEFAULT_CONTEXT[pruning.ratio_of]
    if max_context is None or tokens <= max_context:
        return tokens
    if pruning.context:
        raise UserError(
            f"pruning.context {tokens}: the model's context is {max_context} tokens; use at most "
            "that"
        )
    return max_context


def _params(structures: Structures, pruning: PruningConfig, _: CostInputs) -> Costs:
    bases = {"all": structures.total_params, "blocks": structures.block_params}
    return Costs(
        base=bases[pruning.ratio_of],
        of_mlp=lambda _, channels: channels * structures.channel_params,
        of_others=lambda _, widths: structures.layer_params(replace(widths, mlp_channels=0)),
    )


def _memory(structures: Structures, pruning: PruningConfig, inputs: CostInputs) -> Costs:
    if inputs.dtype is None:
        raise UserError("pruning.ratio_of memory needs a checkpoint, whose data type counts")
    size, tokens = inputs.dtype.itemsize, context_of(pruning, inputs.max_context)
    group = group_kv_bytes(structures, tokens, size)

    def of_others(_: int, widths: LayerWidths) -> int:
        weights = size * structures.layer_params(replace(widths, mlp_channels=0))
        return weights + widths.kv_groups * group

    dtype = str(inputs.dtype).removeprefix("torch.")
    return Costs(
        base=size * structures.total_params + kv_bytes(structures, tokens, size),
        of_mlp=lambda _, channels: size * channels * structures.channel_params,
        of_others=of_others,
        scale=CostScale(unit="bytes", tokens=tokens, conditions=dtype),
    )


def _latency(structures: Structures, pruning: PruningConfig, inputs: CostInputs) -> Costs:
    table, layers = inputs.latency, structures.layers
    if table is None:
        raise UserError(
            "pruning.ratio_of latency needs a latency table of this model; run a compression, or "
            "measure one with adapruner.pruning.costs.measure_latency"
        )
    mlps = [part_of(widths) for widths in layers]
    dense: dict[Part, int] = {"attention": sum(widths.query_heads for widths in layers)}
    for part, widths in zip(mlps, layers, strict=True):
        dense[part] = dense.get(part, 0) + widths.mlp_channels

    def time_of(part: Part, own: int, kept: float) -> float:
        """The layer's share of the part's time, at the share of its own width that it keeps."""
        return table.curves[part].at(kept / own) * own / dense[part]

    def of_others(index: int, widths: LayerWidths) -> float:
        if "attention" not in table.curves:  # none is removed
            return 0.0
        return time_of("attention", layers[index].query_heads, widths.query_heads)

    return Costs(
        base=round(table.total_ns),
        of_mlp=lambda index, channels: time_of(mlps[index], layers[index].mlp_channels, channels),
        of_others=of_others,
        scale=CostScale(
            unit="ns", tokens=table.tokens, phase=table.phase, conditions=str(table.hardware)
        ),
    )


def part_of(widths: LayerWidths) -> Part:
    """The part of the table that a layer's MLP belongs to."""
    return "experts" if widths.experts else "mlp"


_COSTS: Mapping[RatioBase, Callable[[Structures, PruningConfig, CostInputs], Costs]] = {
    "all": _params,
    "blocks": _params,
    "memory": _memory,
    "latency": _latency,
}
