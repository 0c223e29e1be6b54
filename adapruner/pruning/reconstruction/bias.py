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
from adapruner.models.families import family_of
from adapruner.models.streamed.choice import load_or_stream
from adapruner.models.streamed.layers import in_order
from adapruner.models.streamed.passes import forward_passes
from adapruner.models.structures import (
    ATTENTION_PARTS,
    MLP_PARTS,
    LayerModules,
    Structures,
    describe_model,
    layer_modules,
)
from adapruner.progress import announce, track
from adapruner.pruning.plan import LayerPlan, PruningPlan
from adapruner.pruning.reconstruction.request import Reconstruction, ReconstructionRequest
from adapruner.pruning.updates.activations import MICRO_BATCH

_COUPLED = {"down": MLP_PARTS, "output": ATTENTION_PARTS}
"""Compensated projection -> all projections that get a bias with it."""


def check_supported(structures: Structures) -> None:
    """Raises UnreachableError for a family whose checkpoints can't hold the biases."""
    if set(structures.family.bias_switches) != set(_COUPLED):
        raise UnreachableError(
            f"reconstruction.method bias needs biases in the MLPs, which "
            f"{structures.family.architecture} checkpoints can't hold; use least_squares or none"
        )


def reconstruct(request: ReconstructionRequest) -> Reconstruction:
    """The biases of the output projections, computed on the calibration set."""
    model = load_or_stream(request.checkpoint, request.device, "2 reads")
    biases = compensation(model, request.plan, request.pool.calibration)
    layers = [partial(_add_to_layer, biases, index) for index in range(len(request.plan.layers))]
    switches = family_of(model.config.model_type, model.config.architectures).bias_switches
    return Reconstruction(layers, tuple(switches[name] for name in biases))


def compensation(model: Any, plan: PruningPlan, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Projection (down, output) -> what is added to its bias in each layer, float32 [hidden].

    A projection that the plan cuts in no layer is left out. `model` is the dense one, `tokens` the
    calibration set, int [N, T].
    """
    structures, layers = describe_model(model), layer_modules(model)
    means = input_means(model, tokens)
    biases: dict[str, list[Tensor]] = {name: [] for name in _COUPLED}
    for index in in_order(model):
        for name, added in biases.items():
            mean = means[name][index]
            removed = _removed(name, plan.layers[index], structures.head_dim, len(mean))
            weight = layers[index].projections[name].weight.detach().float()
            added.append((weight[:, removed] @ mean[removed]).cpu())
    return {name: added for name, added in biases.items() if any(bias.any() for bias in added)}


def add_biases(model: Any, biases: dict[str, list[Tensor]]) -> None:
    """Adds to the biases of the cut `model`, in place; projections without a bias get one."""
    switches = family_of(model.config.model_type, model.config.architectures).bias_switches
    for name in biases:
        setattr(model.config, switches[name], True)
    for index, modules in enumerate(layer_modules(model)):
        _add_to_layer(biases, index, modules)


def _add_to_layer(biases: dict[str, list[Tensor]], index: int, modules: LayerModules) -> None:
    for name, added in biases.items():
        for coupled in _COUPLED[name]:
            _ensure_bias(modules.projections[coupled])
        linear = modules.projections[name]
        linear.bias.data += added[index].to(linear.bias)


@torch.no_grad()
def input_means(model: Any, tokens: Tensor) -> dict[str, list[Tensor]]:
    """Projection (down, output) -> the mean of its inputs over all tokens, by layer [columns]."""
    layers = layer_modules(model)
    sums: dict[str, list[Tensor]] = {
        name: [torch.zeros(layer.projections[name].in_features) for layer in layers]
        for name in _COUPLED
    }
    announce(f"bias: {len(tokens)} x {tokens.shape[1]} tokens forward")
    decoder = model.get_decoder()  # logits are not needed
    device = model.get_input_embeddings().weight.device
    batches = torch.split(tokens, MICRO_BATCH)
    with _summed(layers, sums):
        for batch in track(forward_passes(model, batches), "bias", len(batches)):
            decoder(batch.to(device).long(), use_cache=False)
    return {name: [total / tokens.numel() for total in totals] for name, totals in sums.items()}


@contextmanager
def _summed(layers: list[LayerModules], sums: dict[str, list[Tensor]]) -> Iterator[None]:
    """Within it, the inputs of the projections are added to `sums`."""

    def add(totals: list[Tensor], index: int, _: nn.Module, args: Any) -> None:
        rows = args[0].flatten(0, -2).float()
        totals[index] = totals[index].to(rows.device) + rows.sum(0)

    hooks = [
        layer.projections[name].register_forward_pre_hook(partial(add, totals, index))
        for name, totals in sums.items()
        for index, layer in enumerate(layers)
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
