"""The objectives of the search: how good a plan is, on text and on rows of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain, islice
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
from adapruner.models.storage import checkpoint as ckpt
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


Batches = Callable[[Any], Iterator[list[float]]]
"""Takes a model; its losses of all windows or rows, batch after batch."""


@dataclass(frozen=True)
class Part:
    """A weighted objective: the losses of `count` windows or rows.

    `dense` are those of the dense model where they have been computed.
    """

    weight: float
    count: int
    batches: Batches
    dense: list[float] | None = None

    def losses(self, model: Any) -> Iterator[list[float]]:
        """The weighted losses of a model, batch after batch, without those that are not numbers."""
        for losses in self.batches(model):
            yield self._weighted(losses)

    def dense_losses(self, dense: Any) -> list[float]:
        """The weighted losses of the dense model."""
        if self.dense is not None:
            return self._weighted(self.dense)
        return list(chain.from_iterable(self.losses(dense)))

    def _weighted(self, losses: list[float]) -> list[float]:
        values = torch.tensor(losses).nan_to_num(WORST, WORST, -WORST)
        weighted: list[float] = (self.weight * values.clamp(-WORST, WORST)).tolist()
        return weighted


@dataclass(frozen=True)
class Objective:
    """What a trial minimizes: the value of each of `names`, see `SearchConfig.objective_names`.

    A single name is the weighted sum of the mean losses of all parts, each of several names the
    mean loss of one part: nats for text, see `margins.row_losses` for rows. A value that is named
    perplexity is the loss as a perplexity. `dense` are the dense model's values.
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
            _margin_part(weight, dense, data)
            if name == MARGIN
            else _text_part(weight, dense, data.windows, first_layer, is_kl=name == "kl")
            for name, weight in search.objectives.items()
        )
        objective = cls(search.objective_names, parts)
        if [*search.objectives] == ["kl"]:
            return replace(objective, dense=(0.0,))  # the divergence from itself
        losses = chain.from_iterable(part.dense_losses(dense) for part in parts)
        return replace(objective, dense=objective.values_of(list(losses)))

    def losses(self, model: Any) -> Iterator[list[float]]:
        """The weighted losses of all windows and rows, batch after batch."""
        return chain.from_iterable(part.losses(model) for part in self.parts)

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
        return self.values_of(list(chain.from_iterable(self.losses(model))))


def _margin_part(weight: float, dense: Any, data: ObjectiveData) -> Part:
    # lm-eval takes seconds to load.
    from adapruner.evaluation.tasks.margins import TaskMargins, row_losses, task_scales

    half = slice(int(data.held_out), None, 2)
    margins = TaskMargins.read(ckpt.load_tokenizer(data.checkpoint), data.tasks, half)
    of_dense = list(chain.from_iterable(margins.batches(dense)))
    scales = task_scales(margins.questions, of_dense)

    def batches(model: Any) -> Iterator[list[float]]:
        rest = iter(scales)
        for part in margins.batches(model):
            yield row_losses(part, islice(rest, len(part)))

    return Part(weight, len(scales), batches, row_losses(of_dense, scales))


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
