"""The importance pass: one forward-backward pass over the pool fills the importance table.

For a sample n with loss L_n (mean negative log-likelihood of its tokens, in nats) and a structure
made of the weights w_j, the table holds

- *coarse* (vector-wise): sum_j w_j dL_n/dw_j, with its sign. It is linear in the gradient, so the
  sum over any subset of samples is exact.
- *magnitude*: sum_j |w_j dL_n/dw_j|. Summed over samples it is an upper bound of the element-wise
  score of the summed gradient, not that score.
- *fisher*: sum_j (w_j dL_n/dw_j)^2, the second-order term with the Fisher information in place of
  the Hessian. Additive over samples by definition.
- *token*: sum_t (sum_c x_tc dL_n/dx_tc)^2 over the sample's tokens t and the structure's columns c
  of down or output, where x is the input of that projection. It is the Fisher information of a mask
  on the structure (Kwon et al., arXiv 2204.09656) with a token, not a sample, as the observation.

For one reference subset of R samples it also holds LLM-Pruner's element-wise scores (arXiv
2305.11627, section 3.2), which are not sums over samples: *element*, sum_j |w_j sum_n dL_n/dw_j|,
of first order, and *mixed*, sum_j |w_j g_j - w_j^2 F_j / 2| with g = sum_n dL_n/dw / R and the
diagonal F = sum_n (dL_n/dw)^2 / R in place of the Hessian. That subset is run as one batch of
search.set_size samples, all others in batches of `MICRO_BATCH`; `activations.held_bytes` says what
each holds in memory.

For metrics without gradients it holds, of the projections down and output, each sample's sums over
its tokens of the inputs and of their squares by column, and sums over the weights alone.

Only coarse parts that differ are stored: coarse(up) = coarse(down) for a channel,
coarse(value) = coarse(output) and coarse(key) = coarse(query) summed over the heads of a KV group.
A bias belongs to its structure. Tokens that an expert is not chosen for are zeros to its channels,
see `models.experts`.

Sums of w_j dL_n/dw_j over all weights of a vector need no weight gradient: they are sums over the
tokens of the projection's output (of down and output: of its input) times the gradient there.
Magnitude, fisher, element and mixed do (`GRADIENT_GROUPS`), and cost more than the backward pass.
They are computed where a metric reads them, see `importance.needs`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapruner.errors import UserError
from adapruner.importance.gradients import GradientPass, Seen, Watched, token_losses
from adapruner.importance.reductions import column_sums, products, unit_sums
from adapruner.importance.table import (
    COARSE_PARTS,
    INPUT_PARTS,
    UNITS,
    ImportanceTable,
    empty_table,
    table_shapes,
)
from adapruner.importance.terms import GRADIENT_GROUPS, REFERENCE_GROUPS
from adapruner.models.activations import (
    activation_bytes,
    held_bytes,
    logit_bytes,
    state_bytes,
)
from adapruner.models.experts import Expert
from adapruner.models.streamed.layers import is_streamed
from adapruner.models.structures import (
    LayerModules,
    Structures,
    describe_model,
    layer_modules,
)
from adapruner.progress import announce

MICRO_BATCH = 4
"""Samples of one forward-backward pass, except for the reference subset, which is one batch."""

_ORDERS = {"magnitude": 1, "fisher": 2}
"""Group of a sum over the weights of |w_j dL_n/dw_j| -> the power in it."""


def reference_subset(samples: int, size: int, seed: int) -> list[int]:
    """`size` of `samples` indices, drawn with `seed`, ascending. Raises UserError for too few."""
    if size > samples:
        raise UserError(
            f"search.set_size is {size}, but the calibration pool has {samples} samples; "
            "raise calibration.pool_size or lower search.set_size"
        )
    drawn = np.random.default_rng(seed).choice(samples, size, replace=False)
    return sorted(int(n) for n in drawn)


def with_reference(
    model: Any, tokens: Tensor, table: ImportanceTable, seed: int
) -> ImportanceTable:
    """`table` with another reference subset of the same size, drawn with `seed` from `tokens`.

    Only the samples of that subset are run.
    """
    drawn = reference_subset(len(tokens), len(table.reference), seed)
    groups = [group for group in REFERENCE_GROUPS if getattr(table, group)]
    if not groups:
        return replace(table, reference=tuple(drawn))
    everyone = list(range(len(drawn)))
    exact = importance_table(model, tokens[drawn], everyone, groups=groups)
    return replace(
        table, reference=tuple(drawn), **{group: getattr(exact, group) for group in groups}
    )


def importance_table(
    model: Any,
    tokens: Tensor,
    reference: list[int],
    domain: tuple[int, ...] | None = None,
    share: tuple[int, int] = (0, 1),
    groups: Collection[str] = GRADIENT_GROUPS,
    out: Path | None = None,
) -> ImportanceTable:
    """The table of `model` (weights frozen) over `tokens`, int [N, T].

    `reference` are the indices of the reference subset; `domain` is each sample's domain (default:
    all of one). `groups` are the GRADIENT_GROUPS of the table. Weight gradients are reduced some
    rows at a time while the backward pass runs: beside the weights, memory holds the activations of
    one batch, see `activations.held_bytes`, and the table. With `out`, a directory, the table is
    written there while it is computed, and memory holds the numbers of one batch. The table of a
    streamed model is the same. Raises UserError for samples of fewer than two tokens.

    With a `share` (r, n) it is the part of process r of n, with zeros for the other processes'
    batches, and for the weights' statistics but in the first process.
    """
    if tokens.shape[1] < 2:
        raise UserError(f"a sample has {tokens.shape[1]} tokens; a prediction needs two")
    structures, layers = describe_model(model), layer_modules(model)
    shapes = table_shapes(structures.layers, structures.head_dim, len(tokens), groups)
    domain = (0,) * len(tokens) if domain is None else domain
    table = empty_table(shapes, tuple(reference), tokens.shape[1], domain, out)
    _announce_cost(model, structures, tokens, len(reference))
    process, processes = share
    batches = batches_of(len(tokens), reference)[process::processes]

    def sink_of(number: int) -> _Accumulator:
        table.release()
        is_reference = bool(reference) and process == number == 0
        wanted = set(groups) if is_reference else set(groups) - set(REFERENCE_GROUPS)
        return _Accumulator(table, structures.head_dim, batches[number], frozenset(wanted))

    mean = partial(token_losses, share=1 / (tokens.shape[1] - 1))
    passed = GradientPass(model, [tokens[batch] for batch in batches], sink_of, lambda _: mean)
    for index in passed.layers("importance"):
        if process == 0:
            _add_weight_statistics(table, index, layers[index], structures.head_dim)
    table.release()
    if out is not None:
        table.write_summary(out)
    return table


def batches_of(samples: int, reference: list[int]) -> list[list[int]]:
    """The samples of each forward-backward pass; the reference subset is the first one."""
    others = [n for n in range(samples) if n not in set(reference)]
    parts = [others[i : i + MICRO_BATCH] for i in range(0, len(others), MICRO_BATCH)]
    return [reference, *parts] if reference else parts


@dataclass(frozen=True)
class _Accumulator:
    """Adds the statistics of one batch to a table, one projection at a time."""

    table: ImportanceTable
    head_dim: int
    batch: list[int]
    groups: frozenset[str]

    def __call__(self, layer: int, name: str, module: Watched, seen: Seen) -> None:
        """Adds what was seen of one projection."""
        rows, first = self._rows(name), _first_unit(module)
        if self.groups:
            by_column = name in INPUT_PARTS
            for some, of_samples in products(
                module, seen.inputs, seen.output_grads, rows, by_column
            ):
                units = slice(first + some.start, first + some.stop)
                self._add_products(layer, name, units, of_samples)
        if seen.input_grads is not None:
            self._add_inputs(layer, name, _units(module), seen.inputs.float(), seen.input_grads)
        elif name in COARSE_PARTS:
            sums = (seen.outputs.float() * seen.output_grads).sum(1)
            self.table.coarse[name][layer][self.batch, _units(module)] = _joined(sums, rows).cpu()

    def _add_products(
        self, layer: int, name: str, units: slice, of_samples: Iterator[Tensor]
    ) -> None:
        """The sums over each sample's weights times gradients, of some units of a projection."""
        kind, rows, table = UNITS[name], self._rows(name), self.table
        first = second = None
        for sample, product in zip(self.batch, of_samples, strict=True):
            for group, order in _ORDERS.items():
                if group in self.groups:
                    of_layer = getattr(table, group)[kind][layer]
                    of_layer[sample, units] += unit_sums(product, rows, order)
            if not self.groups.isdisjoint(REFERENCE_GROUPS):
                squares = product.square()
                first = product if first is None else first.add_(product)
                second = squares if second is None else second.add_(squares)
        if first is None or second is None:
            return
        if "element" in self.groups:
            table.element[kind][layer][units] += unit_sums(first, rows, 1)
        if "mixed" in self.groups:
            mixed = first.sub_(second, alpha=0.5).div_(len(self.batch))
            table.mixed[kind][layer][units] += unit_sums(mixed, rows, 1)

    def _add_inputs(self, layer: int, name: str, units: slice, x: Tensor, grads: Tensor) -> None:
        """The sums over the inputs `x` [B, T, in] of down or output, and the token statistic."""
        table, masks = self.table, _joined(x * grads, self._rows(name))
        sums = {
            "input_sum": x.sum(1),
            "input_square": x.square().sum(1),
            "token": masks.square().sum(1),
        }
        if name in COARSE_PARTS:
            sums["coarse"] = masks.sum(1)
        for group, of_batch in sums.items():
            getattr(table, group)[name][layer][self.batch, units] = of_batch.cpu()

    def _rows(self, name: str) -> int:
        """Rows (of down and output: columns) of a projection that make one unit."""
        return 1 if UNITS[name] == "mlp" else self.head_dim


def _joined(values: Tensor, rows: int) -> Tensor:
    """The sums [..., units] over the `rows` values, [..., units * rows], of each unit."""
    return values if rows == 1 else values.view(*values.shape[:-1], -1, rows).sum(-1)


def _first_unit(module: Watched) -> int:
    """The place of a projection's first unit among those of the layer."""
    return int(module.channels.start) if isinstance(module, Expert) else 0


def _units(module: Watched) -> slice:
    """The units of a projection, and of an expert's also the columns, among those of the layer."""
    return module.channels if isinstance(module, Expert) else slice(None)


def _add_weight_statistics(
    table: ImportanceTable, index: int, layer: LayerModules, head_dim: int
) -> None:
    """Adds the statistics that depend on one layer's weights alone."""
    for name, module in layer.projections.items():
        weight, kind = module.weight.detach(), UNITS[name]
        if name in INPUT_PARTS:
            magnitudes, squares = column_sums(weight)
            table.column_mean[name][index] += magnitudes.cpu() / len(weight)
            table.column_square[name][index] += squares.cpu()
        else:
            squares = torch.linalg.vector_norm(weight.float(), 2, dim=1).square()
            if module.bias is not None:
                squares += module.bias.detach().float().square()
        rows = 1 if kind == "mlp" else head_dim
        table.weight_square[kind][index] += squares.view(-1, rows).sum(1).cpu()


def _announce_cost(model: Any, structures: Structures, tokens: Tensor, reference: int) -> None:
    item, depth, between = model.dtype.itemsize, len(structures.layers), ""
    weights = item * structures.total_params
    batches = [samples * tokens.shape[1] for samples in (MICRO_BATCH, reference)]
    if is_streamed(model):
        weights -= item * structures.block_params * (depth - 2) // depth
        held = activation_bytes(structures, max(batches), item, 1)
        states = state_bytes(structures, tokens.numel(), item)
        between = f" and {states / 2**30:.1f} GiB between layers"
    else:
        held = max(held_bytes(structures, batch, item) for batch in batches)
    held += logit_bytes(model.config.vocab_size, max(batches))
    announce(f"importance: {tokens.shape[0]} x {tokens.shape[1]} tokens forward and backward, "
        f"about {(weights + held) / 2**30:.1f} GiB of memory{between}")  # fmt: skip
