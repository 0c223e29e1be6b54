"""Bias compensation: the average contribution of removed structures becomes a bias.

As in FLAP (arXiv 2312.11983, section 3.3): with the mean x_c of the inputs of column c of an output
projection W (`down_proj`, `o_proj`) over the calibration set of the dense model, the projection's
bias becomes b + sum over removed c of W[:, c] mean x_c. No kept weight changes.

Only families with a config switch for these biases can hold them: in Llama, `mlp_bias` adds a bias
to all three projections of every MLP, `attention_bias` to all four of attention. Biases without a
contribution are zero. These few parameters (per layer: two for each channel kept and one hidden
size for the MLP) are not counted in the plan's ratio; `checkpoint.inspect` counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.errors import UnreachableError
from adapruner.models import checkpoint as ckpt
from adapruner.models.families import family_of
from adapruner.models.structures import (
    ATTENTION_PARTS,
    MLP_PARTS,
    LayerModules,
    Structures,
    describe_model,
    layer_modules,
)
from adapruner.progress import announce, track
from adapruner.pruning.activations import MICRO_BATCH
from adapruner.pruning.plan import LayerPlan, PruningPlan
from adapruner.pruning.reconstruction.request import Correction, ReconstructionRequest

_COUPLED = {"down": MLP_PARTS, "output": ATTENTION_PARTS}
"""Compensated projection -> all projections that get a bias with it."""


def check_supported(structures: Structures) -> None:
    """Raises UnreachableError for a family whose checkpoints can't hold the biases."""
    if set(structures.family.bias_switches) != set(_COUPLED):
        raise UnreachableError(
            f"reconstruction.method bias needs biases in the MLPs, which "
            f"{structures.family.architecture} checkpoints can't hold; use least_squares or none"
        )


def reconstruct(request: ReconstructionRequest) -> Correction:
    """The biases of the output projections, computed on the calibration set."""
    model = ckpt.load_model(request.checkpoint, request.device)
    biases = compensation(model, request.plan, request.pool.calibration)
    return partial(add_biases, biases=biases)


def compensation(model: Any, plan: PruningPlan, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Projection (down, output) -> what is added to its bias in each layer, float32 [hidden].

    A projection that the plan cuts in no layer is left out. `model` is the dense one, `tokens` the
    calibration set, int [N, T].
    """
    structures, layers = describe_model(model), layer_modules(model)
    means = input_means(model, tokens)
    biases: dict[str, list[Tensor]] = {}
    for name in _COUPLED:
        added = []
        for modules, kept, mean in zip(layers, plan.layers, means[name], strict=True):
            removed = _removed(name, kept, structures.head_dim, len(mean))
            weight = modules.projections[name].weight.detach().float()
            added.append((weight[:, removed] @ mean[removed]).cpu())
        if any(bias.any() for bias in added):
            biases[name] = added
    return biases


def add_biases(model: Any, biases: dict[str, list[Tensor]]) -> None:
    """Adds to the biases of the cut `model`, in place; projections without a bias get one."""
    switches = family_of(model.config.model_type, model.config.architectures).bias_switches
    for name, added in biases.items():
        setattr(model.config, switches[name], True)
        for modules, bias in zip(layer_modules(model), added, strict=True):
            for coupled in _COUPLED[name]:
                _ensure_bias(modules.projections[coupled])
            linear = modules.projections[name]
            linear.bias.data += bias.to(linear.bias)


@torch.no_grad()
def input_means(model: Any, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Projection (down, output) -> the mean of its inputs over all tokens, by layer [columns]."""
    layers = layer_modules(model)
    sums: dict[str, list[Tensor]] = {
        name: [torch.zeros_like(layer.projections[name].weight[0]).float() for layer in layers]
        for name in _COUPLED
    }
    announce(f"bias: {len(tokens)} x {tokens.shape[1]} tokens forward")
    device = model.get_input_embeddings().weight.device
    with _summed(layers, sums):
        for batch in track(torch.split(tokens, MICRO_BATCH), "bias"):
            model(batch.to(device).long(), use_cache=False, logits_to_keep=1)
    return {name: [total / tokens.numel() for total in totals] for name, totals in sums.items()}


@contextmanager
def _summed(layers: list[LayerModules], sums: dict[str, list[Tensor]]) -> Iterator[None]:
    """Within it, the inputs of the projections are added to `sums`."""

    def add(total: Tensor, _: nn.Module, args: Any) -> None:
        total += args[0].flatten(0, -2).float().sum(0)

    hooks = [
        layer.projections[name].register_forward_pre_hook(partial(add, total))
        for name, totals in sums.items()
        for layer, total in zip(layers, totals, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _removed(name: str, kept: LayerPlan, head_dim: int, columns: int) -> Tensor:
    """bool [columns]: the columns of down or output that the plan removes."""
    units, rows = (kept.channels(), 1) if name == "down" else (kept.heads(), head_dim)
    removed = torch.ones(columns // rows, dtype=torch.bool)
    removed[units] = False
    return removed.repeat_interleave(rows)


def _ensure_bias(linear: nn.Linear) -> None:
    if linear.bias is None:
        zeros = torch.zeros_like(linear.weight[:, 0])
        linear.bias = nn.Parameter(zeros, requires_grad=False)
