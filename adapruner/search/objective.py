"""The objectives of the search: how good a plan is, on text and on rows of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from adapruner.config import SearchConfig
from adapruner.config.search import MARGIN, PERPLEXITY
from adapruner.evaluation.divergence import (
    TOP_K,
    TopLogProbs,
    split,
    top_log_probs,
    window_divergences,
)
from adapruner.evaluation.perplexity import batches_of, perplexity_of, window_losses
from adapruner.evaluation.prefix import prefix_states, resumed
from adapruner.models import checkpoint as ckpt
from adapruner.models.streamed.layers import is_streamed
from adapruner.models.streamed.passes import forward_passes
from adapruner.pruning.sensitivity import WORST
from adapruner.search.front import Values

STEP_TOKENS = 1024
"""Tokens after which a trial may be stopped."""


@dataclass(frozen=True)
class ObjectiveData:
    """The text and rows that a search evaluates models on.

    `windows` is int [M, T]; `checkpoint` and `tasks` are the directories of the dense checkpoint
    and of the objective rows, one half of which is `held_out` from the trials.
    """

    windows: Tensor
    checkpoint: Path
    tasks: Path
    held_out: bool = False


@dataclass(frozen=True)
class Part:
    """A weighted objective: the losses of `count` windows or rows, batch after batch."""

    weight: float
    count: int
    batches: Callable[[Any], Iterator[list[float]]]


@dataclass(frozen=True)
class Objective:
    """What a trial minimizes: the value of each of `names`, see `SearchConfig.objective_names`.

    A single name is the weighted sum of the mean losses of all parts, each of several names the
    mean loss of one part, in nats; but that named perplexity is the loss as a perplexity. `dense`
    are the dense model's values.
    """

    names: tuple[str, ...]
    parts: tuple[Part, ...]
    dense: Values = ()

    @classmethod
    def of(
        cls, dense: Any, data: ObjectiveData, search: SearchConfig, first_layer: int = 0
    ) -> Objective:
        """The objective for a dense model of which layers from `first_layer` on are cut."""
        parts = tuple(
            _margin_part(weight, data)
            if name == MARGIN
            else _text_part(weight, dense, data.windows, first_layer, is_kl=name == "kl")
            for name, weight in search.objectives.items()
        )
        objective = cls(search.objective_names, parts)
        if [*search.objectives] == ["kl"]:
            return replace(objective, dense=(0.0,))  # the divergence from itself
        return replace(objective, dense=objective.values(dense))

    def losses(self, model: Any) -> Iterator[list[float]]:
        """The weighted losses of all windows and rows, in nats, batch after batch."""
        for part in self.parts:
            for losses in part.batches(model):
                values = torch.tensor(losses).nan_to_num(WORST, WORST, -WORST)
                yield (part.weight * values.clamp(-WORST, WORST)).tolist()

    def values_of(self, losses: Sequence[float]) -> Values:
        """The values of a model with these losses of all windows and rows."""
        rest = iter(losses)
        means = [fmean(islice(rest, part.count)) for part in self.parts]
        totals = means if len(self.names) > 1 else [sum(means)]
        return tuple(
            perplexity_of(total) if name == PERPLEXITY else total
            for name, total in zip(self.names, totals, strict=True)
        )

    def values(self, model: Any) -> Values:
        """The values of a model."""
        return self.values_of([loss for part in self.losses(model) for loss in part])


def _margin_part(weight: float, data: ObjectiveData) -> Part:
    from adapruner.evaluation.tasks.margins import TaskMargins  # loads lm-eval, which takes seconds

    half = slice(int(data.held_out), None, 2)
    margins = TaskMargins.read(ckpt.load_tokenizer(data.checkpoint), data.tasks, half)

    def batches(model: Any) -> Iterator[list[float]]:
        return ([-margin for margin in part] for part in margins.batches(model))

    return Part(weight, len(margins.questions), batches)


def _text_part(
    weight: float, dense: Any, windows: Tensor, first_layer: int, *, is_kl: bool
) -> Part:
    """The loss of a window: its mean negative log-likelihood, or its mean divergence from `dense`.

    The inputs of layer `first_layer` are computed once.
    """
    teacher = top_log_probs(dense, windows, TOP_K) if is_kl else None
    states = torch.cat(prefix_states(dense, windows, first_layer)) if first_layer else None

    parts = batches_of(windows, STEP_TOKENS)
    size = len(parts[0])
    teachers = split(teacher, size) if teacher else [None] * len(parts)
    prefixes = torch.split(states, size) if states is not None else ()
    start = (first_layer, prefixes) if prefixes else None

    def batches(model: Any) -> Iterator[list[float]]:
        passes = zip(forward_passes(model, parts, start), teachers, strict=True)
        for number, (part, expected) in enumerate(passes):
            is_resumed = prefixes and not is_streamed(model)
            with resumed(model, first_layer, prefixes[number]) if is_resumed else nullcontext():
                yield _window_losses(model, part, expected).tolist()

    return Part(weight, len(windows), batches)


def _window_losses(model: Any, batch: Tensor, teacher: TopLogProbs | None) -> Tensor:
    if teacher is None:
        return window_losses(model, batch)
    return window_divergences(model, batch, teacher)
