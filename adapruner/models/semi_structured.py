"""2:4 sparsity: of each 4 consecutive inputs of a projection's output, 2 weights are zero.

NVIDIA GPUs with sparse tensor cores (Ampere and later) multiply by such a weight in up to half the
time, in a compressed form that `torch.sparse.to_sparse_semi_structured(weight)` makes. A checkpoint
holds the dense tensor with its zeros, so that it loads anywhere and is no smaller.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from adapruner.errors import UnreachableError
from adapruner.models.experts import EXPERT_PARAMETERS
from adapruner.models.families import family_of
from adapruner.models.structures import Structures

PATTERN = "2:4"
KEPT, GROUP = 2, 4

Owner = tuple[Any, str]
"""A module, and the name of its parameter that is a projection's weight."""


def check_widths(structures: Structures) -> None:
    """Raises UnreachableError where a projection's number of inputs is no multiple of 4."""
    for index, layer in enumerate(structures.layers):
        inputs = {
            "the hidden size": structures.hidden_size,
            "the MLP's width": layer.mlp_width,
            "the width of attention": layer.query_heads * structures.head_dim,
        }
        for what, width in inputs.items():
            if width % GROUP:
                raise UnreachableError(
                    f"pruning.layout semi_structured needs multiples of {GROUP}, but {what} of "
                    f"layer {index} is {width}; use another layout"
                )


def projections(model: Any) -> dict[str, Owner]:
    """Name of the weight -> its owner, for all projections of attention and MLPs.

    A weight is [out, in]; that of all experts of a layer is [experts, out, in].
    """
    family = family_of(model.config.model_type, model.config.architectures)
    owners: dict[str, Owner] = {}
    for index, layer in enumerate(model.get_submodule(family.layers).children()):
        modules = dict(layer.named_modules())
        names: dict[str, tuple[str, ...]] = dict.fromkeys(family.projections, ("weight",))
        names |= {family.experts: EXPERT_PARAMETERS} if family.experts else {}
        for name, parameters in names.items():
            for parameter in parameters if name in modules else ():
                owners[f"{family.layers}.{index}.{name}.{parameter}"] = (modules[name], parameter)
    return owners


def mask_of(scores: Tensor) -> Tensor:
    """Where the 2 highest of each 4 consecutive scores of the last dimension are, as bool.

    Of equal scores the first ones are kept.
    """
    groups = _groups(scores)
    better = torch.zeros_like(groups, dtype=torch.int8)
    for first, second in combinations(range(GROUP), 2):
        is_higher = groups[..., second] > groups[..., first]
        better[..., first] += is_higher
        better[..., second] += ~is_higher
    return (better < KEPT).flatten(-2)


def check_sparse(model: Any) -> None:
    """Raises ValueError, with the name, for a projection that is not 2:4."""
    for name, (module, parameter) in projections(model).items():
        if (_groups(getattr(module, parameter)) != 0).sum(-1).max() > KEPT:
            raise ValueError(f"'{name}' is not {PATTERN}")


def _groups(values: Tensor) -> Tensor:
    return values.view(*values.shape[:-1], -1, GROUP)
