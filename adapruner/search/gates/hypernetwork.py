"""The network that computes the logits of all gates, and gates from logits.

A bidirectional GRU runs over the blocks of the model in their order, attention and MLP in turn, so
that the gates of a block depend on those around it. Its inputs are random and stay fixed; a linear
head for each group of gates maps a block's normalised state to logits (DISP-LLM, arXiv 2410.11988,
and its hypernetwork). Only the network is trained; the logits are what is kept of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUTS, STATES = 32, 64
"""Sizes of the fixed input of a block, and of the state in each direction."""

OPEN = 3.0
"""Added to all logits, so that most gates are open when training begins."""

Sizes = Mapping[str, int]
"""Kind of gates -> their number, of one layer."""

Logits = list[dict[str, Tensor]]
"""For each layer, kind of gates -> their logits, float32 [gates]."""


class Hypernetwork(nn.Module):
    """The logits of the gates of layers with these numbers of gates."""

    blocks: Tensor

    def __init__(self, layers: Sequence[Sizes]) -> None:
        super().__init__()
        self.register_buffer("blocks", torch.randn(2 * len(layers), INPUTS))
        self.gru = nn.GRU(INPUTS, STATES, bidirectional=True)
        self.norm = nn.LayerNorm(2 * STATES)
        self.heads = nn.ModuleList(
            nn.ModuleDict({kind: nn.Linear(2 * STATES, size) for kind, size in sizes.items()})
            for sizes in layers
        )

    def forward(self) -> Logits:
        """The logits, from the fixed inputs."""
        states = F.gelu(self.norm(self.gru(self.blocks)[0]))
        layers: list[Any] = list(self.heads)
        return [
            {
                kind: head(states[2 * layer + kind.startswith("mlp")]) + OPEN
                for kind, head in heads.items()
            }
            for layer, heads in enumerate(layers)
        ]


def sample_gates(logits: Logits, temperature: float, noise: torch.Generator) -> Logits:
    """Gates of 0 and 1 for one step, drawn by their logits; the gradient is that of the sigmoid.

    A gate is open where the sigmoid of (logit + difference of two Gumbel variables) / temperature
    is above 1/2, which has the probability sigmoid(logit); the straight-through estimator passes
    the gradient on to that sigmoid (arXiv 1611.01144).
    """
    return [
        {kind: _gate(values, temperature, noise) for kind, values in of_layer.items()}
        for of_layer in logits
    ]


def _gate(logits: Tensor, temperature: float, noise: torch.Generator) -> Tensor:
    uniform = torch.rand(logits.shape, generator=noise).clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid((logits + uniform.logit()) / temperature)
    return (soft > 0.5).float() + (soft - soft.detach())
