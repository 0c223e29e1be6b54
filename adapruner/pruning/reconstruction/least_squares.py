"""Least-squares update of the output projections of cut MLPs, layer after layer.

Each layer is updated on the output of the cut and updated layers below it, see `pruning.update`.
Only one layer's X^T X is held at a time; with an open ridge, also that of the text it is chosen on.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from adapruner.models import checkpoint as ckpt
from adapruner.models.structures import LayerModules, Structures, describe_model, layer_modules
from adapruner.progress import announce, track
from adapruner.pruning.activations import ActivationStream
from adapruner.pruning.plan import LayerPlan, PruningPlan
from adapruner.pruning.reconstruction.request import Correction, ReconstructionRequest
from adapruner.pruning.surgery import (
    ATTENTION_PARTS,
    MLP_PARTS,
    check_fits,
    cut_layer,
    narrow_config,
)
from adapruner.pruning.update import RIDGE, RIDGES, output_error, updated_weight

USES_GRAM_MATRICES = True


def check_supported(structures: Structures) -> None:
    """Every model is supported."""


def reconstruct(request: ReconstructionRequest) -> Correction:
    """The updated down projections of all cut layers, computed on the plan's mix of the domains.

    Where neither the settings nor the plan have a ridge, it is chosen for each layer on the
    objective text.
    """
    pool, plan = request.pool, request.plan
    weights = plan.update.sample_weights(pool.domain)
    samples, weights = pool.update[weights > 0], weights[weights > 0]
    announce(f"update: {len(samples)} x {samples.shape[1]} tokens, twice through every layer")
    model = ckpt.load_model(request.checkpoint, request.device)
    dense = [layer.down.in_features for layer in layer_modules(model)]
    ridge = request.ridge or plan.update.ridge
    apply_and_update(model, plan, samples, ridge, pool.objective, weights)
    updated = {
        index: layer.down.weight.detach().cpu()
        for index, (layer, width) in enumerate(zip(layer_modules(model), dense, strict=True))
        if layer.down.in_features < width
    }

    def correct(cut: Any) -> None:
        layers = layer_modules(cut)
        for index, weight in updated.items():
            layers[index].down.weight.data.copy_(weight)

    return correct


def apply_and_update(
    model: Any,
    plan: PruningPlan,
    samples: Tensor,
    ridge: float | None,
    fresh: Tensor | None = None,
    weights: Tensor | None = None,
) -> list[float]:
    """`surgery.apply` with the update of every layer whose MLP is cut; the ridges used.

    `samples` is int [N, T], with `weights` [N] or all the same weight. With `ridge` None each layer
    uses that of `RIDGES` with the lowest error on `fresh`, int [M, T], text that the update is not
    computed from.
    """
    structures = describe_model(model)
    check_fits(plan, structures)
    stream = ActivationStream(model, samples)
    choice = ActivationStream(model, fresh) if ridge is None and fresh is not None else None
    ridges = []
    layers = list(zip(layer_modules(model), structures.layers, plan.layers, strict=True))
    for modules, dense, kept in track(layers, "update"):
        whole = modules.down.weight.detach()
        cut_layer(modules, dense, kept, structures.head_dim, ATTENTION_PARTS)
        if len(kept.channels()) < dense.mlp_channels:
            gram = stream.gram(modules.down, weights)
            fresh_gram = choice.gram(modules.down) if choice else None
            cut_layer(modules, dense, kept, structures.head_dim, MLP_PARTS)
            candidates = RIDGES if fresh_gram is not None else (ridge or RIDGE,)
            ridges.append(_update(modules, whole, kept, gram, candidates, fresh_gram))
        stream.advance()
        if choice:
            choice.advance()
    model.config = narrow_config(model.config, structures, plan)
    return ridges


def _update(
    modules: LayerModules,
    whole: Tensor,
    kept: LayerPlan,
    gram: Tensor,
    ridges: tuple[float, ...],
    fresh_gram: Tensor | None,
) -> float:
    """Puts the best update into the cut layer; its ridge."""
    channels = kept.channels()
    weights = {ridge: updated_weight(whole, gram, channels, ridge) for ridge in ridges}
    errors = {
        ridge: 0.0 if fresh_gram is None else output_error(whole, weight, channels, fresh_gram)
        for ridge, weight in weights.items()
    }
    best = min(ridges, key=errors.__getitem__)
    modules.down.weight.data = weights[best]
    return best
