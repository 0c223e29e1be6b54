"""Weights that are trained dense and used sparse.

The forward pass uses the masked weight m * W. Its gradient passes straight through to all of the
dense *shadow* weight W, so that a masked weight still learns and may return. As in SR-STE (arXiv
2102.04010), masked weights decay: their gradient is g + lambda (1 - m) W. In AST (arXiv 2407.20584)
lambda is annealed in: it grows with the steps, so that weights are free to change places first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adapruner.models.semi_structured import Owner, mask_of

RAMP = 0.5
"""Share of the steps in which the decay grows."""


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shadow: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(shadow, mask)
        ctx.decay = decay
        return shadow * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        shadow, mask = ctx.saved_tensors
        if not ctx.decay:
            return gradient, None, None
        return torch.addcmul(gradient, shadow, (~mask).to(shadow), value=ctx.decay), None, None


class Mask(nn.Module):
    """Masks a weight; `kept` is bool, of the weight's shape."""

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)
        self.decay = 0.0

    def forward(self, shadow: Tensor) -> Tensor:
        """The masked weight."""
        apply: Any = _StraightThrough.apply
        return cast(Tensor, apply(shadow, self.kept, self.decay))


@dataclass(frozen=True)
class MaskedWeights:
    """The masked weights of a model by name. `steps` are those of the whole training."""

    owners: Mapping[str, Owner]
    steps: int
    update_steps: int
    decay: float

    @classmethod
    def put(
        cls,
        owners: Mapping[str, Owner],
        kept: Mapping[str, Tensor],
        steps: int,
        update_steps: int,
        decay: float,
    ) -> MaskedWeights:
        """Masks the weights of `owners` by `kept`, in place; the shadow weights are trained."""
        for name, (module, parameter) in owners.items():
            mask = Mask(kept[name].to(getattr(module, parameter).device))
            parametrize.register_parametrization(module, parameter, mask)
            shadow_of(module, parameter).requires_grad_(True)
        return cls(owners, steps, update_steps, decay)

    def before_step(self, step: int) -> None:
        """Updates the masks in every `update_steps`-th step, and the decay; steps count from 1."""
        done = step - 1
        growth = min(done / (RAMP * self.steps), 1.0)
        for module, parameter in self.owners.values():
            mask = mask_at(module, parameter)
            mask.decay = self.decay * growth
            if done and done % self.update_steps == 0:
                mask.kept.copy_(mask_of(shadow_of(module, parameter).detach().abs()))

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Name -> the masked weight, on the CPU."""
        return {name: getattr(*owner).detach().cpu() for name, owner in self.owners.items()}


def shadow_of(module: Any, parameter: str) -> nn.Parameter:
    """The shadow weight of a masked one."""
    return cast(nn.Parameter, module.parametrizations[parameter].original)


def mask_at(module: Any, parameter: str) -> Mask:
    """The mask of a masked weight."""
    return cast(Mask, module.parametrizations[parameter][0])
