"""The experts of a sparse layer, seen as one MLP.

The block of a layer with E experts of C channels computes, for a token x with the router's weights
r_e, which are 0 for experts that are not chosen, sum_e r_e W_e (act(G_e x) * U_e x). That is an MLP
of E C channels whose down projection has the inputs r_e act(G_e x) * U_e x: channel c of expert e
is channel e C + c of it. Statistics and updates of channels are defined on these inputs.

Transformers holds the weights of all experts in two tensors, so that each expert of a layer has the
same number of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXPERT_PARAMETERS = ("gate_up_proj", "down_proj")
"""The weights of all experts of a layer, one tensor each."""


@dataclass(frozen=True, eq=False)
class ExpertWeights:
    """The weights of a block: `gate_up` [E, 2 C, H], `down` [E, H, C] and `router` [E, H]."""

    gate_up: Tensor
    down: Tensor
    router: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Experts and channels of each."""
        return self.down.shape[0], self.down.shape[2]

    def keeping(self, channels: Sequence[int]) -> ExpertWeights:
        """These channels, of all experts ascending, the same number of each expert that is kept.

        An expert without any is removed, and with it its row of the router.
        """
        count, size = self.shape
        kept = sorted({channel // size for channel in channels})
        experts = torch.tensor(kept, device=self.down.device)
        columns = (torch.tensor(channels, device=self.down.device) % size).view(len(kept), -1)
        rows = self.gate_up.view(count, 2, size, -1).transpose(1, 2)
        down = self.down.transpose(1, 2)
        owners = experts.unsqueeze(1)
        return ExpertWeights(
            gate_up=rows[owners, columns].transpose(1, 2).flatten(1, 2),
            down=down[owners, columns].transpose(1, 2).contiguous(),
            router=self.router[experts],
        )


@dataclass(frozen=True, eq=False)
class ExpertProjection:
    """The projections `name` (gate, up or down) of all experts of `block`, as those of one MLP.

    `experts` and `router` are modules of the block. A weight that is read is a copy.
    """

    block: Any
    experts: Any
    router: Any
    name: str
    bias: None = None

    @property
    def weights(self) -> ExpertWeights:
        """The weights of the block."""
        parts = self.experts.gate_up_proj, self.experts.down_proj, self.router.weight
        return ExpertWeights(*(part.detach() for part in parts))

    @property
    def weight(self) -> Tensor:
        """Of gate and up [E C, hidden], of down [hidden, E C]."""
        gate, up = self.weights.gate_up.chunk(2, 1)
        if self.name == "down":
            return joined(self.weights.down)
        return (gate if self.name == "gate" else up).flatten(0, 1)

    @property
    def device(self) -> torch.device:
        """The device of the block."""
        device: torch.device = self.experts.down_proj.device
        return device

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        experts, hidden, channels = self.experts.down_proj.shape
        return int(experts * channels if self.name == "down" else hidden)

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        experts, hidden, channels = self.experts.down_proj.shape
        return int(hidden if self.name == "down" else experts * channels)

    def put(self, weights: ExpertWeights) -> None:
        """Replaces the weights of the block."""
        for module, name, weight in (
            (self.experts, "gate_up_proj", weights.gate_up),
            (self.experts, "down_proj", weights.down),
            (self.router, "weight", weights.router),
        ):
            setattr(module, name, nn.Parameter(weight, requires_grad=False))
        self.experts.num_experts, self.experts.intermediate_dim = weights.shape
        self.router.num_experts = len(weights.router)


@dataclass(frozen=True, eq=False)
class Expert:
    """A projection of one expert while a batch of tokens [B, T] runs.

    `channels` are its channels among those of all experts, `rows` the tokens that it is chosen for,
    [n], by their indices in the `shape` B, T.
    """

    weight: Tensor
    channels: slice
    rows: Tensor
    shape: torch.Size
    bias: None = None

    def spread(self, values: Tensor) -> Tensor:
        """From [n, width] of the expert's tokens to [B, T, width], 0 for the others."""
        whole = values.new_zeros(self.shape.numel(), values.shape[-1])
        return whole.index_copy(0, self.rows, values).view(*self.shape, -1)


See = Callable[[str, Expert, Tensor, Tensor], None]
"""Gets the name of a projection, its expert, and its inputs and outputs [n, width]."""


@contextmanager
def opened(projection: ExpertProjection, see: See) -> Iterator[None]:
    """Within it, the block of `projection` runs expert after expert and calls `see` for each part.

    The router's weights are multiplied into the inputs of the down projections.
    """
    block = projection.block

    def forward(hidden: Tensor) -> Tensor:
        tokens, weights = hidden.flatten(0, -2), projection.weights
        _, scores, chosen = projection.router(tokens)
        total, size = torch.zeros_like(tokens), weights.shape[1]
        for index, (gate_up, down) in enumerate(zip(weights.gate_up, weights.down, strict=True)):
            rows, place = torch.where(chosen == index)
            if not len(rows):
                continue
            channels = slice(index * size, (index + 1) * size)
            expert = partial(Expert, channels=channels, rows=rows, shape=hidden.shape[:-1])
            inputs = tokens[rows]
            gate, up = (F.linear(inputs, weight) for weight in gate_up.chunk(2))
            inner = projection.experts.act_fn(gate) * up * scores[rows, place, None]
            outputs = F.linear(inner, down)
            see("gate", expert(gate_up[:size]), inputs, gate)
            see("up", expert(gate_up[size:]), inputs, up)
            see("down", expert(down), inner, outputs)
            total = total.index_add(0, rows, outputs.to(total.dtype))
        return total.view_as(hidden)

    own = vars(block).get("forward")  # Accelerate's wrapper, of a model spread over devices
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own


def joined(down: Tensor) -> Tensor:
    """Down projections [E, hidden, C] as that of one MLP, [hidden, E C]."""
    return down.transpose(0, 1).flatten(1)


def separate(down: Tensor, experts: int) -> Tensor:
    """The inverse of `joined`: [E, hidden, C]."""
    return down.view(len(down), experts, -1).transpose(0, 1).contiguous()
