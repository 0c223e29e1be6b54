"""lm-eval's log-likelihoods of continuations, with what requests share computed once.

The choices of a question share its context. Requests whose tokens begin alike form a group: one
forward pass over the beginning leaves the keys and values that each member then goes on from.
Groups are sorted by length and packed, so that little is padding, and the vocabulary's logits are
computed at the scored positions alone. The sums are those of lm-eval's own model class, up to
rounding; they are taken in float32 where lm-eval takes the model's type.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import DynamicCache

from adapruner.evaluation.packing import Group, Request, groups_of, packed
from adapruner.progress import console, announce, track

TOKENS_A_SEQUENCE = 128
"""A batch size of n allows forward passes over n times this many tokens."""
CACHE_SHARE = 4
"""Tokens whose keys and values are held at once, as a multiple of those of a forward pass."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
LOOSE_TOLERANCE = 5e-2

Pair = tuple[Any, list[int], list[int]]
Answer = tuple[float, bool]


@dataclass
class _Sum:
    """What of a request's answer has been added up."""

    score: float = 0.0
    greedy: bool = True


_Wanted = tuple[int, int, int, _Sum]
"""Row and position in a forward pass, the token looked for there, and where its score goes."""


@dataclass(frozen=True)
class _Row:
    """A request in its group (by number), and how many tokens are shared there."""

    group: int
    request: Request
    shared: int

    @property
    def rest(self) -> list[int]:
        return self.request.tokens[self.shared :]

    def targets(self) -> Iterator[tuple[int, int]]:
        """The scored positions of the request's tokens, each with the token it predicts."""
        return enumerate(self.request.targets, len(self.request.tokens) - len(self.request.targets))


class SharedContextLM(HFLM):
    """lm-eval's Transformers model with a faster way to the same log-likelihoods.

    Before the first use both ways are tried on a few requests. A model that can't go on from
    cached keys and values, or gives other scores when it does, is measured in lm-eval's way.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.works: dict[bool, bool] = {}
        """Whether the faster way was found to work, without and with going on from a cache."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Answer]:
        """Sum of log-likelihoods in nats, and whether greedy decoding gives it, of each request."""
        answers: list[Answer] = super().loglikelihood(
            requests, disable_tqdm=not console.is_terminal
        )
        return answers

    def _loglikelihood_tokens(
        self, requests: list[Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[Answer]:
        asked = [self._request(i, *pair[1:]) for i, pair in enumerate(requests)]
        groups = groups_of(asked)
        cached = any(map(_has_rest, groups))
        if cached not in self.works:
            self.works[cached] = self._gives_the_same(groups, requests, cached)
        if not self.works[cached]:
            answers: list[Answer] = super()._loglikelihood_tokens(requests, disable_tqdm, **kwargs)
            return answers
        found = self._answers(groups, "zero-shot")
        for pair, answer in zip(requests, found, strict=True):
            if pair[0] is not None:
                self.cache_hook.add_partial("loglikelihood", pair[0], answer)
        return found

    def _request(self, number: int, context: list[int], continuation: list[int]) -> Request:
        tokens = (context + continuation)[-(self.max_length + 1) :][:-1]
        if len(continuation) > len(tokens):
            raise ValueError(
                f"a continuation of {len(continuation)} tokens does not fit in evaluation."
                f"max_length {self.max_length}"
            )
        return Request(number, tokens, continuation)

    def _gives_the_same(self, groups: Sequence[Group], requests: list[Pair], cached: bool) -> bool:
        """Whether the faster way gives lm-eval's scores on two short groups of unlike length."""
        window = getattr(self.model.config, "sliding_window", None)
        if self.backend != "causal" or (window and window <= self.max_length):
            return False
        by_size = sorted(groups, key=lambda g: sum(len(m.tokens) for m in g.members))
        tried = [g for g in by_size if _has_rest(g) == cached][:1]
        tried += [g for g in by_size if g.shared != tried[0].shared][:1]
        ends = [m for g in tried for m in (g.members[0], g.members[-1])]
        pairs = [requests[m.number] for m in ends]
        again = groups_of([self._request(i, *pair[1:]) for i, pair in enumerate(pairs)])
        wanted = super()._loglikelihood_tokens(pairs, True)
        try:
            found = self._answers(again)
        except Exception as error:  # a model may refuse any of what it is given, in its own words
            announce(f"contexts are not shared: {type(error).__name__}: {str(error)[:120]}")
            return False
        tolerance = TOLERANCE.get(self.model.dtype, LOOSE_TOLERANCE)
        same = all(
            abs(f[0] - w[0]) <= tolerance * (1 + abs(w[0]))
            for f, w in zip(found, wanted, strict=True)
        )
        if not same:
            announce("contexts are not shared: this model scores them differently from its cache")
        return same

    def _answers(self, groups: Sequence[Group], description: str = "") -> list[Answer]:
        budget = int(self.batch_size) * TOKENS_A_SEQUENCE
        batches = packed(groups, lambda g: g.shared, lambda n, longest: n * longest <= budget)
        sums = [_Sum() for group in groups for _ in group.members]
        for part in track(batches, description) if description else batches:
            self._score(part, sums, budget)
        return [(total.score, total.greedy) for total in sums]

    @torch.inference_mode()
    def _score(self, groups: list[Group], sums: list[_Sum], budget: int) -> None:
        """Adds the scores of all members of `groups` to `sums`."""
        width = groups[0].shared
        rows = [_Row(i, m, g.shared) for i, g in enumerate(groups) for m in g.members]
        cache = self._read_prefixes(groups, rows, width, sums)

        def fits(count: int, longest: int) -> bool:
            held = count * (width + longest)
            return held <= CACHE_SHARE * budget and count * longest <= budget

        rest = [row for row in rows if row.rest]
        for part in packed(rest, lambda row: len(row.rest), fits):
            self._go_on(part, width, cache, sums)

    def _read_prefixes(
        self, groups: list[Group], rows: list[_Row], width: int, sums: list[_Sum]
    ) -> Any:
        """Reads the shared beginnings, adds what they predict; the cache, where it is needed.

        Beginnings are padded on the left: what follows them is then next to them.
        """
        tokens = torch.zeros(len(groups), width, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for i, group in enumerate(groups):
            tokens[i, width - group.shared :] = torch.tensor(group.prefix)
            mask[i, width - group.shared :] = 1
        cached = any(row.rest for row in rows)
        cache = DynamicCache() if cached else None
        wanted = [
            (row.group, width - row.shared + place, target, sums[row.request.number])
            for row in rows
            for place, target in row.targets()
            if place < row.shared
        ]
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        self._forward(wanted, tokens, mask, positions, past_key_values=cache, use_cache=cached)
        return cache

    def _go_on(self, rows: list[_Row], width: int, cache: Any, sums: list[_Sum]) -> None:
        """Reads what of `rows` comes after the beginnings, each from its group's cache."""
        longest = len(rows[0].rest)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), width + longest, dtype=torch.long)
        for i, row in enumerate(rows):
            tokens[i, : len(row.rest)] = torch.tensor(row.rest)
            mask[i, width - row.shared : width + len(row.rest)] = 1
        wanted = [
            (i, place - row.shared, target, sums[row.request.number])
            for i, row in enumerate(rows)
            for place, target in row.targets()
            if place >= row.shared
        ]
        positions = torch.tensor([[row.shared] for row in rows]) + torch.arange(longest)
        own = selected(cache, torch.tensor([row.group for row in rows]))
        self._forward(wanted, tokens, mask, positions, past_key_values=own, use_cache=True)

    def _forward(
        self, wanted: list[_Wanted], tokens: Tensor, mask: Tensor, positions: Tensor, **cache: Any
    ) -> None:
        """Reads `tokens` [rows, length] and adds the log-likelihoods of the wanted targets.

        The head sees the hidden states of the wanted positions alone, as one row [1, n, hidden].
        """
        rows, places, targets, sums = zip(*wanted, strict=True) if wanted else ((0,), (0,), (), ())

        def select(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return given[0][list(rows), list(places)][None], *given[1:]

        hook = self.model.get_output_embeddings().register_forward_pre_hook(select)
        try:
            logits = self.model(
                input_ids=tokens.to(self.device),
                attention_mask=mask.to(self.device),
                position_ids=positions.to(self.device),
                **cache,
            ).logits
        finally:
            hook.remove()
        if wanted:
            values = logits[0].float()
            chosen = values[range(len(targets)), list(targets)]
            best = values.argmax(1).tolist()
            scores = (chosen - values.logsumexp(1)).tolist()
            for total, score, first, target in zip(sums, scores, best, targets, strict=True):
                total.score += score
                total.greedy &= first == target


def _has_rest(group: Group) -> bool:
    """Whether a member has tokens of its own to read."""
    return any(len(member.tokens) > group.shared for member in group.members)


def selected(cache: Any, rows: Tensor) -> DynamicCache:
    """A new cache with `rows` of `cache`, in that order, some of them perhaps several times."""
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return DynamicCache([(k[rows.to(k.device)], v[rows.to(v.device)]) for k, v in layers])
