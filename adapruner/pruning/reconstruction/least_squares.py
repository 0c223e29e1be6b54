"""Least-squares update of cut MLPs, layer after layer.

Each layer is updated on the output of the cut and updated layers below it: its output projection in
closed form, see `pruning.updates.update`, then all its weights by gradient descent, see
`pruning.updates.fit_mlp`. Only one layer's activations are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adapruner.models.experts import ExpertProjection, separate
from adapruner.models.streamed.choice import load_or_stream
from adapruner.models.streamed.layers import in_order, is_streamed
from adapruner.models.structures import (
    ATTENTION_PARTS,
    MLP_PARTS,
    PROJECTIONS,
    LayerModules,
    Structures,
    describe_model,
    layer_modules,
)
from adapruner.progress import announce, track
from adapruner.pruning.narrow_config import narrow_config
from adapruner.pruning.plan import LayerPlan, PruningPlan
from adapruner.pruning.reconstruction.request import (
    Correction,
    Reconstruction,
    ReconstructionRequest,
)
from adapruner.pruning.surgery import check_fits, cut_layer
from adapruner.pruning.updates.activations import ActivationStream, MlpText
from adapruner.pruning.updates.fit_mlp import fit_mlp
from adapruner.pruning.updates.gram_matrices import GramMatrices
from adapruner.pruning.updates.update import RIDGE, RIDGES, output_error, updated_weight


def check_supported(structures: Structures) -> None:
    """Every model is supported."""


def reconstruct(request: ReconstructionRequest) -> Reconstruction:
    """The updated MLPs of all cut layers, computed on the plan's mix of the domains.

    Where neither the settings nor the plan have a ridge, it is chosen for each layer on the
    objective text, or `RIDGE` with the activations of the dense model.
    """
    model = load_or_stream(request.checkpoint, request.device, "1 read")
    if request.settings.is_by_matrices:
        updated = _update_from_matrices(model, request)
    else:
        updated = _update_from_text(model, request)
    layers = _corrections(updated)
    return Reconstruction(layers if is_streamed(model) else list(layers))


def _update_from_text(
    model: Any, request: ReconstructionRequest
) -> Iterator[tuple[LayerModules, float | None]]:
    pool, plan = request.pool, request.plan
    weights = plan.update.sample_weights(pool.domain)
    samples, weights = pool.update[weights > 0], weights[weights > 0]
    settings = request.settings
    announce(
        f"update: {len(samples)} x {samples.shape[1]} tokens, twice through every layer and "
        f"{settings.epochs} epochs of each cut MLP"
    )
    text = UpdateText(samples, weights, pool.objective)
    ridge = settings.ridge or plan.update.ridge
    return update_layers(model, plan, text, ridge, settings.epochs)


def _update_from_matrices(
    model: Any, request: ReconstructionRequest
) -> Iterator[tuple[LayerModules, float | None]]:
    """As `update_layers`, by the matrices of the trials: the model of the selected trial."""
    if request.gram_matrices is None:
        raise ValueError("activations of the dense model need its gram matrices")
    plan, structures = request.plan, describe_model(model)
    check_fits(plan, structures)
    ridge = request.settings.ridge or plan.update.ridge or RIDGE
    with_ridge = plan.model_copy(update={"update": plan.update.model_copy(update={"ridge": ridge})})
    grams = GramMatrices(request.gram_matrices)
    updates = grams.updated_projections(model, with_ridge)
    layers = list(zip(layer_modules(model), structures.layers, plan.layers, strict=True))
    for index in track(in_order(model), "update", len(layers)):
        modules, dense, kept = layers[index]
        down = updates.get(index)
        cut_layer(modules, dense, kept, structures.head_dim, PROJECTIONS)
        if down is not None:
            _put(modules, down)
        yield modules, None if down is None else ridge
    model.config = narrow_config(model.config, structures, plan)


def _corrections(updated: Iterator[tuple[LayerModules, float | None]]) -> Iterator[Correction]:
    """Each layer's updated MLP, on the CPU."""
    for modules, ridge in updated:
        is_cut = ridge is not None
        mlp = modules.mlp.named_parameters() if is_cut else ()
        yield partial(_correct, {name: weight.detach().cpu() for name, weight in mlp})


def _correct(weights: Mapping[str, Tensor], modules: LayerModules) -> None:
    parameters = dict(modules.mlp.named_parameters())
    for name, weight in weights.items():
        stored = parameters[name]
        # A copy of an unchanged weight would be rounded to the type that is computed in.
        if not torch.equal(stored.cpu().to(weight.dtype), weight):
            stored.data.copy_(weight)


@dataclass(frozen=True, eq=False)
class UpdateText:
    """The text of an update: `samples`, int [N, T], with `weights` [N] or all the same weight.

    `fresh`, int [M, T], is text that the update is not computed from, to choose on.
    """

    samples: Tensor
    weights: Tensor | None = None
    fresh: Tensor | None = None


def apply_and_update(
    model: Any, plan: PruningPlan, text: UpdateText, ridge: float | None, epochs: int = 0
) -> list[float]:
    """`surgery.apply` with the update of every layer whose MLP is cut; the ridges used."""
    updated = update_layers(model, plan, text, ridge, epochs)
    return [used for _, used in updated if used is not None]


def update_layers(
    model: Any, plan: PruningPlan, text: UpdateText, ridge: float | None, epochs: int
) -> Iterator[tuple[LayerModules, float | None]]:
    """`apply_and_update`, one layer after the other.

    Yields the modules of each layer, while it is in memory, and the ridge used, None for an MLP
    that is not cut. With `ridge` None each layer uses that of `RIDGES` with the lowest error on
    `text.fresh`. `epochs` are those of `fit_mlp`.
    """
    structures = describe_model(model)
    check_fits(plan, structures)
    stream = ActivationStream(model, text.samples)
    fresh_text = text.fresh if ridge is None or epochs else None
    choice = None if fresh_text is None else ActivationStream(model, fresh_text)
    layers = list(zip(layer_modules(model), structures.layers, plan.layers, strict=True))
    is_cut = [len(kept.channels()) < dense.mlp_channels for _, dense, kept in layers]
    for index in track(in_order(model), "update", len(layers)):
        modules, dense, kept = layers[index]
        used = None
        cut_layer(modules, dense, kept, structures.head_dim, ATTENTION_PARTS)
        if is_cut[index]:
            whole = modules.down.weight.detach()
            seen = stream.observe(modules.mlp, modules.down, text.weights)
            fresh = choice.observe(modules.mlp, modules.down) if choice else None
            cut_layer(modules, dense, kept, structures.head_dim, MLP_PARTS)
            candidates = (ridge,) if ridge else RIDGES if fresh else (RIDGE,)
            used = _update(modules, whole, kept, candidates, seen, fresh)
            if epochs:
                fit_mlp(modules.mlp, seen, fresh, epochs)
        if any(is_cut[index + 1 :]):  # the layers above the last update need no activations
            stream.advance()
            if choice:
                choice.advance()
        yield modules, used
    model.config = narrow_config(model.config, structures, plan)


def _update(
    modules: LayerModules,
    whole: Tensor,
    kept: LayerPlan,
    ridges: tuple[float, ...],
    seen: MlpText,
    fresh: MlpText | None,
) -> float:
    """Puts the best update into the cut layer; its ridge."""
    channels = kept.channels()
    weights = {ridge: updated_weight(whole, seen.gram, channels, ridge) for ridge in ridges}
    errors = {
        ridge: 0.0 if fresh is None else output_error(whole, weight, channels, fresh.gram)
        for ridge, weight in weights.items()
    }
    best = min(ridges, key=errors.__getitem__)
    _put(modules, weights[best])
    return best


def _put(modules: LayerModules, down: Tensor) -> None:
    """Makes `down` the output projection of the cut MLP."""
    if isinstance(modules.down, ExpertProjection):
        cut = modules.down.weights
        modules.down.put(replace(cut, down=separate(down, len(cut.down))))
    else:
        modules.down.weight.data = down
