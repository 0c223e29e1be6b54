"""One forward-backward pass over the pool: the per-sample importance table.

For a sample n with loss L_n (mean negative log-likelihood of its tokens, in nats) and a structure
made of the weights w_j, the table holds

- *coarse* (vector-wise): sum_j w_j dL_n/dw_j, with its sign. It is linear in the gradient, so the
  sum over any subset of samples is exact.
- *magnitude*: sum_j |w_j dL_n/dw_j|. Summed over samples it is an upper bound of the element-wise
  score of the summed gradient, not that score.
- *fisher*: sum_j (w_j dL_n/dw_j)^2, the second-order term with the Fisher information in place of
  the Hessian. Additive over samples by definition.
- *token*: sum_t (sum_c x_tc dL_n/dx_tc)^2 over the sample's tokens t and the structure's columns c
  of down or output, with x what goes into that projection. It is the Fisher information of a mask
  on the structure (Kwon et al., arXiv 2204.09656) with a token, not a sample, as the observation.

For one reference subset of R samples it also holds LLM-Pruner's element-wise scores (arXiv
2305.11627, section 3.2), which no sum over samples gives: *element*, sum_j |w_j sum_n dL_n/dw_j|,
of first order, and *mixed*, sum_j |w_j g_j - w_j^2 F_j / 2| with g = sum_n dL_n/dw / R and the
diagonal F = sum_n (dL_n/dw)^2 / R in place of the Hessian. That subset is run as one batch of
search.set_size samples, all others in batches of `MICRO_BATCH`: the larger of the two decides how
much memory the activations take.

For scores that need no gradient it holds, of the projections down and output, each sample's sums
over its tokens of the inputs and of their squares by column, and sums over the weights alone.

Of the coarse parts only those are stored that differ: coarse(up) = coarse(down) for a channel,
coarse(value) = coarse(output) and coarse(key) = coarse(query) summed over the heads of a KV group.
A bias belongs to its structure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapruner import checkpoint as ckpt
from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.gradients import backward, unit_sums, watched, with_bias
from adapruner.progress import say, track
from adapruner.structures import LayerModules, LayerWidths, describe_model, layer_modules

FILE = "importance.safetensors"
MICRO_BATCH = 4
"""Samples of one forward-backward pass, but for the reference subset, which is one batch."""

UNITS = {
    "gate": "mlp", "up": "mlp", "down": "mlp",
    "query": "heads", "output": "heads", "key": "groups", "value": "groups",
}  # fmt: skip
"""Which structure's units the rows of a projection (of down and output: the columns) belong to."""

COARSE_PARTS = ("gate", "down", "query", "output")
INPUT_PARTS = ("down", "output")
KINDS = ("mlp", "heads", "groups")
GROUPS = ("coarse", "magnitude", "fisher", "token", "element", "mixed", "input_sum", "input_square",
          "weight_square", "column_mean", "column_square")  # fmt: skip
MARKS = ("reference", "length", "source")


@dataclass(frozen=True)
class ImportanceTable:
    """Statistics of every structure of every layer. All tensors are float32.

    `coarse[part][layer]` is [N, units] for the parts gate, down (units: channels), query and
    output (units: query heads); `magnitude[kind][layer]` and `fisher[kind][layer]` are [N, units]
    for the kinds mlp, heads and groups; `token[part][layer]` is [N, units] for the parts down and
    output; `element[kind][layer]` and `mixed[kind][layer]` are [units]; `reference` lists the
    samples of the reference subset, `source` the index of each sample's source.

    `input_sum[part][layer]` and `input_square[part][layer]` are [N, columns] for the parts down
    and output, each over the `length` tokens of a sample. Of the weights alone:
    `weight_square[kind][layer]` [units], the sum of squares of all coupled weights, and for the
    parts down and output `column_mean[part][layer]` and `column_square[part][layer]` [columns],
    the mean magnitude and the sum of squares of a column.
    """

    coarse: dict[str, list[Tensor]]
    magnitude: dict[str, list[Tensor]]
    fisher: dict[str, list[Tensor]]
    token: dict[str, list[Tensor]]
    element: dict[str, list[Tensor]]
    mixed: dict[str, list[Tensor]]
    input_sum: dict[str, list[Tensor]]
    input_square: dict[str, list[Tensor]]
    weight_square: dict[str, list[Tensor]]
    column_mean: dict[str, list[Tensor]]
    column_square: dict[str, list[Tensor]]
    reference: tuple[int, ...]
    length: int
    source: tuple[int, ...]

    @property
    def samples(self) -> int:
        return len(self.coarse["gate"][0])

    def write(self, file: Path) -> None:
        tensors = {
            f"{group}.{part}.{index:04d}": tensor
            for group in GROUPS
            for part, layers in getattr(self, group).items()
            for index, tensor in enumerate(layers)
        }
        marks = {name: torch.tensor(getattr(self, name)) for name in MARKS}
        save_file(tensors | marks, file)


def read_table(file: Path) -> ImportanceTable:
    """The table that `ImportanceTable.write` wrote."""
    tensors = load_file(file)
    length = int(tensors.pop("length"))
    reference, source = (tuple(tensors.pop(name).tolist()) for name in ("reference", "source"))
    groups: dict[str, dict[str, list[Tensor]]] = {}
    for name in sorted(tensors):
        group, part, _ = name.split(".")
        groups.setdefault(group, {}).setdefault(part, []).append(tensors[name])
    return ImportanceTable(**groups, reference=reference, length=length, source=source)


def estimate(
    checkpoint: Path, pool: Path, model: ModelConfig, reference_size: int, seed: int, out: Path
) -> None:
    """Runs the pass over the calibration set of `pool` and writes the table to `out`."""
    content = load_file(pool / "pool.safetensors")
    tokens, source = content["calibration"], tuple(content["source"].tolist())
    loaded = ckpt.load_model(checkpoint, model)
    table = importance_table(loaded, tokens, reference_subset(len(tokens), reference_size, seed))
    _write(replace(table, source=source), out)


def rereference(checkpoint: Path, pool: Path, table: Path, model: ModelConfig, seed: int,
                out: Path) -> None:  # fmt: skip
    """Writes to `out` the table in the directory `table` with another reference subset.

    It is as large as the former one and drawn by `seed`; only its samples are run.
    """
    known = read_table(table / FILE)
    tokens = load_file(pool / "pool.safetensors")["calibration"]
    drawn = reference_subset(len(tokens), len(known.reference), seed)
    loaded = ckpt.load_model(checkpoint, model)
    exact = importance_table(loaded, tokens[drawn], list(range(len(drawn))))
    _write(replace(known, element=exact.element, mixed=exact.mixed, reference=tuple(drawn)), out)


def _write(table: ImportanceTable, out: Path) -> None:
    table.write(out / FILE)
    summary = {"samples": table.samples, "sequence_length": table.length,
               "layers": len(table.coarse["gate"]), "reference": list(table.reference)}  # fmt: skip
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def reference_subset(samples: int, size: int, seed: int) -> list[int]:
    """`size` samples drawn by `seed`, ascending. Raises UserError when there are fewer."""
    if size > samples:
        raise UserError(
            f"search.set_size is {size}, but the calibration pool has {samples} samples; "
            "raise calibration.pool_size or lower search.set_size"
        )
    drawn = np.random.default_rng(seed).choice(samples, size, replace=False)
    return sorted(int(n) for n in drawn)


def importance_table(model: Any, tokens: Tensor, reference: list[int]) -> ImportanceTable:
    """The table of `model` (weights frozen) over `tokens`, int [N, T].

    Gradients are reduced matrix by matrix while the backward pass runs: beside the weights only
    one projection's gradient (of the reference subset also its sum and sum of squares) and the
    activations of one batch are held, of MICRO_BATCH samples or, as the reference subset is one
    batch, of all of that (search.set_size). All samples count as one source's.
    """
    structures, layers = describe_model(model), layer_modules(model)
    table = _empty_table(structures.layers, structures.head_dim, tokens, tuple(reference))
    for index, layer in enumerate(layers):
        _weigh(table, index, layer, structures.head_dim)
    _say_cost(model, layers, tokens, len(reference))
    others = [n for n in range(len(tokens)) if n not in set(reference)]
    batches = [reference] if reference else []
    batches += [others[i : i + MICRO_BATCH] for i in range(0, len(others), MICRO_BATCH)]
    for number, batch in enumerate(track(batches, "importance")):
        exact = bool(reference) and number == 0
        sink = partial(_reduce, table, structures.head_dim, batch, exact)
        with watched(layers, sink):
            backward(model, tokens[batch])
    return table


def _reduce(
    table: ImportanceTable,
    head_dim: int,
    batch: list[int],
    exact: bool,
    layer: int,
    name: str,
    module: nn.Linear,
    inputs: Tensor,
    grads: Tensor,
) -> None:
    """Adds one projection's statistics of one micro-batch to the table."""
    kind = UNITS[name]
    weight = module.weight.float()
    columns = name in INPUT_PARTS
    rows = 1 if kind == "mlp" else head_dim
    first, second = torch.zeros(()), torch.zeros(())
    for position, sample in enumerate(batch):
        delta, x = grads[position].float(), inputs[position].float()
        gradient = (grads[position].T @ inputs[position]).float()
        product = with_bias(gradient.mul_(weight), delta, module, columns)
        stats = unit_sums(product, rows)
        if name in COARSE_PARTS:
            table.coarse[name][layer][sample] = stats[0]
        table.magnitude[kind][layer][sample] += stats[1]
        table.fisher[kind][layer][sample] += stats[2]
        if columns:
            table.input_sum[name][layer][sample] = x.sum(0)
            table.input_square[name][layer][sample] = x.square().sum(0)
            masks = (grads[position] @ module.weight).float().mul_(x).view(len(x), -1, rows).sum(2)
            table.token[name][layer][sample] = masks.square().sum(0)
        if exact:
            first = product.clone() if not position else first.add_(product)
            second = product.square() if not position else second.addcmul_(product, product)
    if exact:
        table.element[kind][layer] += unit_sums(first, rows)[1]
        mixed = first.sub_(second, alpha=0.5).div_(len(batch))
        table.mixed[kind][layer] += unit_sums(mixed, rows)[1]


def _weigh(table: ImportanceTable, index: int, layer: LayerModules, head_dim: int) -> None:
    """Fills in what is of one layer's weights alone."""
    for name, module in layer.projections.items():
        weight, kind = module.weight.detach().float(), UNITS[name]
        columns = name in INPUT_PARTS
        squares = torch.linalg.vector_norm(weight, 2, dim=0 if columns else 1).square()
        if columns:
            magnitudes = torch.linalg.vector_norm(weight, 1, dim=0)
            table.column_mean[name][index] += magnitudes.cpu() / len(weight)
            table.column_square[name][index] += squares.cpu()
        elif module.bias is not None:
            squares += module.bias.detach().float().square()
        rows = 1 if kind == "mlp" else head_dim
        table.weight_square[kind][index] += squares.view(-1, rows).sum(1).cpu()


def _empty_table(
    layers: tuple[LayerWidths, ...], head_dim: int, tokens: Tensor, reference: tuple[int, ...]
) -> ImportanceTable:
    fields = {"mlp": "mlp_channels", "heads": "query_heads", "groups": "kv_groups"}
    samples, length = tokens.shape

    def zeros(parts: tuple[str, ...], *shape: int, of: Any = None) -> dict[str, list[Tensor]]:
        return {
            part: [torch.zeros(*shape, (of or units)(widths, part)) for widths in layers]
            for part in parts
        }

    def units(widths: LayerWidths, part: str) -> int:
        return int(getattr(widths, fields[UNITS.get(part, part)]))

    def columns(widths: LayerWidths, part: str) -> int:
        return widths.mlp_channels if part == "down" else widths.query_heads * head_dim

    return ImportanceTable(
        coarse=zeros(COARSE_PARTS, samples),
        magnitude=zeros(KINDS, samples),
        fisher=zeros(KINDS, samples),
        token=zeros(INPUT_PARTS, samples),
        element=zeros(KINDS),
        mixed=zeros(KINDS),
        input_sum=zeros(INPUT_PARTS, samples, of=columns),
        input_square=zeros(INPUT_PARTS, samples, of=columns),
        weight_square=zeros(KINDS),
        column_mean=zeros(INPUT_PARTS, of=columns),
        column_square=zeros(INPUT_PARTS, of=columns),
        reference=reference,
        length=length,
        source=(0,) * samples,
    )


def _say_cost(model: Any, layers: list[LayerModules], tokens: Tensor, reference: int) -> None:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    largest = max(p.weight.numel() for layer in layers for p in layer.projections.values()) * 4
    batch = max(reference, MICRO_BATCH) * tokens.shape[1]
    width = sum(p.in_features + 2 * p.out_features for p in layers[0].projections.values())
    held = batch * (len(layers) * width * weights // model.num_parameters()
                    + 3 * 4 * model.config.vocab_size)  # fmt: skip
    gib = (weights + 3 * largest + held) / 2**30
    say(f"importance: {tokens.shape[0]} x {tokens.shape[1]} tokens forward and backward, "
        f"about {gib:.1f} GiB of memory")  # fmt: skip
