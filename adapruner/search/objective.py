"""The objective of the search: how good a plan is, measured on text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adapruner.config.search import ObjectiveName
from adapruner.evaluation.divergence import TOP_K, TopLogProbs, mean_divergence, top_log_probs
from adapruner.evaluation.perplexity import perplexity
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import narrowed


@dataclass(frozen=True)
class Objective:
    """Evaluates models on `windows`, int [M, T], of text that nothing was estimated on.

    The value is the perplexity or, where there is a `teacher`, the mean divergence in nats per
    token from the dense model's next-token distributions. Lower is better; `dense` is the dense
    model's value.
    """

    windows: Tensor
    teacher: TopLogProbs | None
    dense: float

    @classmethod
    def of(cls, dense: Any, windows: Tensor, name: ObjectiveName) -> Objective:
        """The objective `name` for a dense model."""
        if name == "kl":
            return cls(windows, top_log_probs(dense, windows, TOP_K), 0.0)
        return cls(windows, None, perplexity(dense, windows))

    def value(self, model: Any) -> float:
        """The value of a model; infinite where its logits are not numbers."""
        if self.teacher is None:
            return perplexity(model, self.windows)
        divergence = mean_divergence(model, self.windows, self.teacher)
        return divergence if math.isfinite(divergence) else math.inf

    def value_of_plan(self, dense: Any, plan: PruningPlan, down: Mapping[int, Tensor]) -> float:
        """The value of the model after the plan, with updated down projections `down` by layer."""
        with narrowed(dense, plan, down):
            return self.value(dense)
