"""Cutting projections to the subsets of the residual stream that a plan keeps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapruner.errors import UserError
from adapruner.models.modeling import select_residual
from adapruner.models.residual import check_residual
from adapruner.models.structures import LayerModules, Structures, placed
from adapruner.pruning.plan import PruningPlan, ResidualPlan


def check_subsets(plan: PruningPlan, structures: Structures) -> None:
    """Raises UserError for subsets that the model can't have, or that not all its layers have."""
    if not plan.has_subsets:
        return
    check_residual(structures)
    for index, (dense, kept) in enumerate(zip(structures.layers, plan.layers, strict=True)):
        if kept.residual is None or len(kept.heads()) < dense.query_heads:
            raise UserError(
                f"layer {index} of the plan must have residual subsets and all query heads, as all "
                "layers of the layout residual_subsets; edit the plan"
            )
        last = max(subset[-1] for subset in kept.residual.subsets.values())
        if last >= kept.residual.size or kept.residual.size != structures.hidden_size:
            raise UserError(
                f"layer {index} of the plan keeps residual dimension {last} of "
                f"{kept.residual.size}, but the model has {structures.hidden_size}; edit the plan"
            )


def cut_subsets(modules: LayerModules, kept: ResidualPlan, hidden_size: int) -> None:
    """Removes from the projections of one layer, in place, what its subsets do not keep."""
    subsets = kept.subsets
    blocks = (
        ("attention", modules.attention, ("query", "key", "value"), modules.output),
        ("mlp", modules.mlp, ("gate", "up"), modules.down),
    )
    for name, block, readers, writer in blocks:
        assert isinstance(writer, nn.Linear)
        device = writer.weight.device
        reads = torch.tensor(subsets[f"{name}_in"], device=device)
        writes = torch.tensor(subsets[f"{name}_out"], device=device)
        for linear in {placed(getattr(modules, part))[0] for part in readers}:
            _put(linear, linear.weight.index_select(1, reads), linear.bias)
        bias = None if writer.bias is None else writer.bias.index_select(0, writes)
        _put(writer, writer.weight.index_select(0, writes), bias)
        select_residual(block, reads, writes, hidden_size)


def _put(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    linear.out_features, linear.in_features = weight.shape
