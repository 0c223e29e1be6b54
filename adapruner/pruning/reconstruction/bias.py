"""Bias compensation: what removed structures contribute on average becomes a bias.

As in FLAP (arXiv 2312.11983, section 3.3): with mean x_c of what goes into column c of an output
projection W (`down_proj`, `o_proj`) over the calibration set of the dense model, the projection's
bias becomes b + sum over removed c of W[:, c] mean x_c. No kept weight changes.

Only Llama checkpoints can hold these biases: `mlp_bias` gives all three projections of every MLP
one, `attention_bias` all four of attention. Those that nothing is added to are zero. These few
parameters (a layer: two for each channel kept and one hidden size for the MLP) are not counted
against the ratio, which a plan states of what is cut; `checkpoint.inspect` counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.errors import UnreachableError
from adapruner.pruning.plan import LayerPlan, PruningPlan
from adapruner.progress import announce, track
from adapruner.models.structures import LayerModules, Structures, describe_model, layer_modules
from adapruner.pruning.surgery import ATTENTION_PARTS, MLP_PARTS

MICRO_BATCH = 8
_SWITCHES = {"down": ("mlp_bias", MLP_PARTS), "output": ("attention_bias", ATTENTION_PARTS)}
"""Projection that is compensated -> the config's switch, and all projections that it gives one."""


def refuse_without_biases(structures: Structures) -> None:
    """Raises UnreachableError for a family whose checkpoints can't hold the biases."""
    if structures.family.model_type != "llama":
        raise UnreachableError(
            f"reconstruction.method bias needs biases in the MLPs, which no "
            f"{structures.family.architecture} checkpoint can hold; use least_squares or none"
        )


def compensation(model: Any, plan: PruningPlan, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Projection (down, output) -> what is added to its bias in each layer, float32 [hidden].

    A projection that the plan cuts in no layer is left out. `model` is the dense one, `tokens` the
    calibration set, int [N, T].
    """
    structures, layers = describe_model(model), layer_modules(model)
    means = input_means(model, tokens)
    found: dict[str, list[Tensor]] = {}
    for name in _SWITCHES:
        added = []
        for modules, kept, mean in zip(layers, plan.layers, means[name], strict=True):
            gone = _removed(name, kept, structures.head_dim, len(mean))
            weight = modules.projections[name].weight.detach().float()
            added.append((weight[:, gone] @ mean[gone]).cpu())
        if any(bias.any() for bias in added):
            found[name] = added
    return found


def add(model: Any, compensated: dict[str, list[Tensor]]) -> None:
    """Adds to the biases of the cut `model`, in place; projections without one get one."""
    for name, added in compensated.items():
        switch, together = _SWITCHES[name]
        setattr(model.config, switch, True)
        for modules, bias in zip(layer_modules(model), added, strict=True):
            for other in together:
                _give_bias(modules.projections[other])
            linear = modules.projections[name]
            linear.bias.data += bias.to(linear.bias)


@torch.no_grad()
def input_means(model: Any, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Projection (down, output) -> the mean over all tokens of its inputs, by layer [columns]."""
    layers = layer_modules(model)
    sums: dict[str, list[Tensor]] = {
        name: [torch.zeros_like(layer.projections[name].weight[0]).float() for layer in layers]
        for name in _SWITCHES
    }
    announce(f"bias: {len(tokens)} x {tokens.shape[1]} tokens forward")
    device = model.get_input_embeddings().weight.device
    with _summed(layers, sums):
        for batch in track(torch.split(tokens, MICRO_BATCH), "bias"):
            model(batch.to(device).long(), use_cache=False, logits_to_keep=1)
    return {name: [total / tokens.numel() for total in totals] for name, totals in sums.items()}


@contextmanager
def _summed(layers: list[LayerModules], sums: dict[str, list[Tensor]]) -> Iterator[None]:
    def note(total: Tensor, _: nn.Module, args: Any) -> None:
        total += args[0].flatten(0, -2).float().sum(0)

    handles = [
        layer.projections[name].register_forward_pre_hook(partial(note, total))
        for name, totals in sums.items()
        for layer, total in zip(layers, totals, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _removed(name: str, kept: LayerPlan, head_dim: int, columns: int) -> Tensor:
    """Mask over the columns of down or output: those that the plan removes."""
    units, rows = (kept.channels(), 1) if name == "down" else (kept.heads(), head_dim)
    gone = torch.ones(columns // rows, dtype=torch.bool)
    gone[units] = False
    return gone.repeat_interleave(rows)


def _give_bias(linear: nn.Linear) -> None:
    if linear.bias is None:
        zeros = torch.zeros_like(linear.weight[:, 0])
        linear.bias = nn.Parameter(zeros, requires_grad=False)
