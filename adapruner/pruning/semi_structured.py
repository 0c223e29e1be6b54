"""Zeros in 2 of 4 weights of every projection, by a score of each weight.

The scores: `magnitude` |W_ij|; `wanda` |W_ij| |X_j|, with the norm of input j over the calibration
set of the dense model (arXiv 2306.11695, here not updated layer after layer).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.config import DeviceConfig
from adapruner.data.pool import Pool
from adapruner.errors import UnreachableError
from adapruner.models.semi_structured import check_sparse, mask_of, projections
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import describe_model
from adapruner.progress import announce, track
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import check_fits
from adapruner.pruning.updates.activations import MICRO_BATCH


def make_sparse(model: Any, norms: Mapping[str, Tensor]) -> int:
    """Sets the weights with the lower scores to zero, in place; their number.

    `norms` has the norms of each projection's inputs, [in], for `wanda`; empty for `magnitude`.
    """
    zeros = 0
    for name, (module, parameter) in projections(model).items():
        weight = getattr(module, parameter)
        scores = weight.abs()
        if name in norms:
            scores = scores.float() * norms[name].to(weight.device)
        mask = mask_of(scores)
        weight.masked_fill_(~mask, 0)
        zeros += int((~mask).sum())
    return zeros


def norms_for(score: str, model: Any, tokens: Tensor) -> dict[str, Tensor]:
    """What a score of weights needs of the dense model on the calibration set, int [N, T].

    Raises UnreachableError for `wanda` where the model has experts.
    """
    if score != "wanda":
        return {}
    if describe_model(model).has_experts:
        raise UnreachableError(
            "search.metric wanda: the inputs of experts are not measured; use magnitude"
        )
    return input_norms(model, tokens)


@torch.no_grad()
def input_norms(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    """Name of a projection's weight -> the norm of each input over all tokens, float32 [in]."""
    announce(f"wanda: {len(tokens)} x {tokens.shape[1]} tokens forward")
    owners = projections(model)
    squares = {name: torch.zeros(m.weight.shape[-1]) for name, (m, _) in owners.items()}

    def add(name: str, _: nn.Module, args: Any) -> None:
        squares[name] += args[0].flatten(0, -2).float().square().sum(0).cpu()

    hooks = [
        module.register_forward_pre_hook(partial(add, name)) for name, (module, _) in owners.items()
    ]
    decoder = model.get_decoder()  # logits are not needed
    device = model.get_input_embeddings().weight.device
    try:
        for batch in track(torch.split(tokens, MICRO_BATCH), "wanda"):
            decoder(batch.to(device).long(), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: square.sqrt() for name, square in squares.items()}


def sparse_model(checkpoint: Path, plan: PruningPlan, pool: Pool, device: DeviceConfig) -> Any:
    """The model of `checkpoint` in its stored data type, with the zeros of a plan that has some."""
    assert plan.sparsity is not None
    score = plan.sparsity.score
    norms = norms_for(score, ckpt.load_model(checkpoint, device), pool.calibration)
    model = ckpt.load_model(checkpoint, device, dtype=ckpt.stored_dtype(checkpoint))
    check_fits(plan, describe_model(model))
    make_sparse(model, norms)
    check_sparse(model)
    return model
