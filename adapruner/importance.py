"""One forward-backward pass over the pool: the per-sample importance table.

For a sample n with loss L_n (mean negative log-likelihood of its tokens, in nats) and a structure
made of the weights w_j, the table holds

- *coarse* (vector-wise): sum_j w_j dL_n/dw_j, with its sign. It is linear in the gradient, so the
  sum over any subset of samples is exact.
- *magnitude*: sum_j |w_j dL_n/dw_j|. Summed over samples it is an upper bound of the element-wise
  score of the summed gradient, not that score.
- *fisher*: sum_j (w_j dL_n/dw_j)^2, the second-order term with the Fisher information in place of
  the Hessian. Additive over samples by definition.

For one reference subset it also holds *element*, the exact sum_j |w_j sum_n dL_n/dw_j|
(LLM-Pruner, arXiv 2305.11627, eq. 4, first order). That subset is run as one batch of
search.set_size samples, all others in batches of `MICRO_BATCH`: the larger of the two decides how
much memory the activations take.

Of the coarse parts only those are stored that differ: coarse(up) = coarse(down) for a channel,
coarse(value) = coarse(output) and coarse(key) = coarse(query) summed over the heads of a KV group.
A bias belongs to its structure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from adapruner import checkpoint as ckpt
from adapruner.config import ModelConfig
from adapruner.errors import UserError
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
KINDS = ("mlp", "heads", "groups")


@dataclass(frozen=True)
class ImportanceTable:
    """Per-sample statistics of every structure of every layer. All tensors are float32.

    `coarse[part][layer]` is [N, units] for the parts gate, down (units: channels), query and
    output (units: query heads); `magnitude[kind][layer]` and `fisher[kind][layer]` are [N, units]
    for the kinds mlp, heads and groups; `element[kind][layer]` is [units]; `reference` lists the
    samples of the reference subset.
    """

    coarse: dict[str, list[Tensor]]
    magnitude: dict[str, list[Tensor]]
    fisher: dict[str, list[Tensor]]
    element: dict[str, list[Tensor]]
    reference: tuple[int, ...]

    @property
    def samples(self) -> int:
        return len(self.coarse["gate"][0])

    def write(self, file: Path) -> None:
        tensors = {
            f"{group}.{part}.{index:04d}": tensor
            for group in ("coarse", "magnitude", "fisher", "element")
            for part, layers in getattr(self, group).items()
            for index, tensor in enumerate(layers)
        }
        save_file(tensors | {"reference": torch.tensor(self.reference)}, file)


def read_table(file: Path) -> ImportanceTable:
    """The table that `ImportanceTable.write` wrote."""
    tensors = load_file(file)
    reference = tuple(int(n) for n in tensors.pop("reference"))
    groups: dict[str, dict[str, list[Tensor]]] = {}
    for name in sorted(tensors):
        group, part, _ = name.split(".")
        groups.setdefault(group, {}).setdefault(part, []).append(tensors[name])
    return ImportanceTable(**groups, reference=reference)


def estimate(
    checkpoint: Path, pool: Path, model: ModelConfig, reference_size: int, seed: int, out: Path
) -> None:
    """Runs the pass over the calibration set of `pool` and writes the table to `out`."""
    tokens = load_file(pool / "pool.safetensors")["calibration"]
    loaded = ckpt.load_model(checkpoint, model)
    table = importance_table(loaded, tokens, reference_subset(len(tokens), reference_size, seed))
    table.write(out / FILE)
    summary = {"samples": table.samples, "sequence_length": tokens.shape[1],
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
    one projection's gradient and the activations of one batch are held, of MICRO_BATCH samples or,
    as the reference subset is one batch, of all of that (search.set_size).
    """
    structures, layers = describe_model(model), layer_modules(model)
    table = _empty_table(structures.layers, len(tokens), tuple(reference))
    _say_cost(model, layers, tokens, len(reference))
    others = [n for n in range(len(tokens)) if n not in set(reference)]
    batches = [reference] if reference else []
    batches += [others[i : i + MICRO_BATCH] for i in range(0, len(others), MICRO_BATCH)]
    for number, batch in enumerate(track(batches, "importance")):
        exact = bool(reference) and number == 0
        sink = partial(_reduce, table, structures.head_dim, batch, exact)
        with _watched(layers, sink):
            _backward(model, tokens[batch])
    return table


def _backward(model: Any, tokens: Tensor) -> None:
    """Backward pass of the sum over samples of their mean token losses, weights left alone."""
    embedding = model.get_input_embeddings()
    tokens = tokens.to(embedding.weight.device).long()
    inputs = embedding(tokens).detach().requires_grad_()
    with torch.enable_grad():
        logits = model(inputs_embeds=inputs, use_cache=False).logits[:, :-1].float()
        targets = tokens[:, 1:].to(logits.device)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        loss = losses / targets.shape[1]
    if not torch.isfinite(loss):
        raise UserError(
            f"the model's loss on the calibration set is {loss.item()}; check the weights, "
            "or use dtype: float32"
        )
    loss.backward()  # type: ignore[no-untyped-call]


Sink = Callable[[int, str, nn.Linear, Tensor, Tensor], None]


@contextmanager
def _watched(layers: list[LayerModules], sink: Sink) -> Iterator[None]:
    """Within it, `sink` gets layer, projection, module, input [B, T, in] and output gradient."""

    def watch(layer: int, name: str, module: nn.Linear, args: Any, output: Tensor) -> None:
        inputs = args[0].detach()
        reduce: Any = lambda grad: sink(layer, name, module, inputs, grad)  # noqa: E731
        output.register_hook(reduce)  # type: ignore[no-untyped-call]

    handles = [
        linear.register_forward_hook(partial(watch, index, name))
        for index, layer in enumerate(layers)
        for name, linear in layer.projections.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
    columns = name in ("down", "output")
    rows = 1 if kind == "mlp" else head_dim
    total: Tensor | None = None
    for position, sample in enumerate(batch):
        delta, x = grads[position].float(), inputs[position].float()
        gradient = delta.T @ x
        bias = None if module.bias is None or columns else delta.sum(0) * module.bias.float()
        if exact:
            total = gradient.clone() if total is None else total.add_(gradient)
        product = gradient.mul_(weight)
        stats = _unit_sums(product.T if columns else product, bias, rows)
        if name in COARSE_PARTS:
            table.coarse[name][layer][sample] = stats[0]
        table.magnitude[kind][layer][sample] += stats[1]
        table.fisher[kind][layer][sample] += stats[2]
    if total is not None:
        product = total.mul_(weight)
        bias = None if module.bias is None or columns else grads.float().sum((0, 1)) * module.bias
        table.element[kind][layer] += _unit_sums(product.T if columns else product, bias, rows)[1]


def _unit_sums(product: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    """[3, units] on the CPU: sum, sum of magnitudes, sum of squares over `rows` rows a unit."""
    sums = torch.stack(
        [
            product.sum(1),
            torch.linalg.vector_norm(product, 1, dim=1),
            torch.linalg.vector_norm(product, 2, dim=1).square(),
        ]
    )
    if bias is not None:
        sums += torch.stack([bias, bias.abs(), bias.square()])
    return sums.view(3, -1, rows).sum(2).cpu()


def _empty_table(
    layers: tuple[LayerWidths, ...], samples: int, reference: tuple[int, ...]
) -> ImportanceTable:
    def zeros(kind: str, *shape: int) -> list[Tensor]:
        fields = {"mlp": "mlp_channels", "heads": "query_heads", "groups": "kv_groups"}
        return [torch.zeros(*shape, getattr(widths, fields[kind])) for widths in layers]

    return ImportanceTable(
        coarse={part: zeros(UNITS[part], samples) for part in COARSE_PARTS},
        magnitude={kind: zeros(kind, samples) for kind in KINDS},
        fisher={kind: zeros(kind, samples) for kind in KINDS},
        element={kind: zeros(kind) for kind in KINDS},
        reference=reference,
    )


def _say_cost(model: Any, layers: list[LayerModules], tokens: Tensor, reference: int) -> None:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    largest = max(p.weight.numel() for layer in layers for p in layer.projections.values()) * 4
    batch = max(reference, MICRO_BATCH) * tokens.shape[1]
    width = sum(p.in_features + 2 * p.out_features for p in layers[0].projections.values())
    held = batch * (len(layers) * width * weights // model.num_parameters()
                    + 3 * 4 * model.config.vocab_size)  # fmt: skip
    gib = (weights + 2 * largest + held) / 2**30
    say(f"importance: {tokens.shape[0]} x {tokens.shape[1]} tokens forward and backward, "
        f"about {gib:.1f} GiB of memory")  # fmt: skip
