"""The objective of the search: how good a plan is, measured on text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from adapruner.config.search import ObjectiveName
from adapruner.evaluation.divergence import (
    TopLogProbs,
    split,
    top_log_probs,
    window_divergences,
)
from adapruner.evaluation.perplexity import batches_of, perplexity_of, window_losses
from adapruner.evaluation.prefix import prefix_states, resumed
from adapruner.pruning.sensitivity import TOP_K

STEP_TOKENS = 1024
"""Tokens after which a trial may be stopped."""

WORST = 100.0
"""Nats per token: stands for a loss that is not a number."""


@dataclass(frozen=True)
class Objective:
    """Evaluates models on `windows`, int [M, T], of text that nothing was estimated on.

    The loss of a window, in nats per token, is its mean negative log-likelihood or, where there is
    a `teacher`, its mean divergence from the dense model's next-token distributions. The value is
    the perplexity or the mean divergence. Lower is better; `dense` is the dense model's value.

    Models differ from the dense one from decoder layer `first_layer` on only; `states` are the
    inputs of that layer, which are computed once.
    """

    windows: Tensor
    teacher: TopLogProbs | None
    dense: float
    first_layer: int = 0
    states: Tensor | None = None

    @classmethod
    def of(
        cls, dense: Any, windows: Tensor, name: ObjectiveName, first_layer: int = 0
    ) -> Objective:
        """The objective `name` for a dense model whose layers from `first_layer` on are cut."""
        teacher = top_log_probs(dense, windows, TOP_K) if name == "kl" else None
        states = torch.cat(prefix_states(dense, windows, first_layer)) if first_layer else None
        objective = cls(windows, teacher, 0.0, first_layer, states)
        if teacher is None:
            return cls(windows, None, objective.value(dense), first_layer, states)
        return objective

    def losses(self, model: Any) -> Iterator[list[float]]:
        """The losses of the windows, in nats per token, batch after batch."""
        batches = batches_of(self.windows, STEP_TOKENS)
        size, none = len(batches[0]), [None] * len(batches)
        teachers = split(self.teacher, size) if self.teacher else none
        states = torch.split(self.states, size) if self.states is not None else none
        for batch, teacher, prefix in zip(batches, teachers, states, strict=True):
            skipped = nullcontext() if prefix is None else resumed(model, self.first_layer, prefix)
            with skipped:
                if teacher is None:
                    losses = window_losses(model, batch)
                else:
                    losses = window_divergences(model, batch, teacher)
            yield losses.nan_to_num(WORST, WORST, -WORST).clamp_max(WORST).tolist()

    def value_of(self, losses: Sequence[float]) -> float:
        """The value of a model with these losses of all windows."""
        return perplexity_of(fmean(losses)) if self.teacher is None else fmean(losses)

    def value(self, model: Any) -> float:
        """The value of a model."""
        return self.value_of([loss for part in self.losses(model) for loss in part])
