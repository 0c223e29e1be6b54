"""How good a cut is, measured on text: what a trial is told, and what decides in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapruner.config import Objective
from adapruner.evaluation.perplexity import TOKENS_AT_ONCE, perplexity
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import narrowed
from adapruner.evaluation.divergence import Likely, divergence, likeliest

EXPECTED = 64
"""Tokens of the dense model's distribution that are told apart in the divergence."""


@dataclass(frozen=True)
class Judge:
    """Measures models on `windows`, int [M, T], of text that nothing was estimated on.

    The value is lower for the better: the perplexity, or for `kl` the mean divergence in nats a
    token from what the dense model expects (`known`; see `teacher`). `dense` is the dense model's.
    """

    windows: Tensor
    known: Likely | None
    dense: float

    @classmethod
    def of(cls, dense: Any, windows: Tensor, objective: Objective) -> Judge:
        if objective == "kl":
            return cls(windows, likeliest(dense, windows, EXPECTED), 0.0)
        return cls(windows, None, perplexity(dense, windows))

    def value(self, model: Any) -> float:
        if self.known is None:
            return perplexity(model, self.windows)
        return mean_divergence(model, self.windows, self.known)

    def value_cut(self, dense: Any, plan: PruningPlan, down: Mapping[int, Tensor]) -> float:
        """The value of the model that `plan` leaves, with the down projections `down` by layer."""
        with narrowed(dense, plan, down):
            return self.value(dense)


@torch.inference_mode()
def mean_divergence(model: Any, windows: Tensor, known: Likely) -> float:
    """In nats a token of `windows`, int [M, T]: KL(known || model), see `teacher.divergence`."""
    device = model.get_input_embeddings().weight.device
    size = max(TOKENS_AT_ONCE // windows.shape[1], 1)
    total = 0.0
    for start in range(0, len(windows), size):
        part = slice(start, start + size)
        logits = model(windows[part].to(device).long(), use_cache=False).logits[:, :-1]
        wanted = Likely(known.tokens[part].flatten(0, 1), known.logs[part].flatten(0, 1))
        total += divergence(wanted, logits.flatten(0, 1)).sum().item()
    return total / (windows.shape[0] * (windows.shape[1] - 1))
