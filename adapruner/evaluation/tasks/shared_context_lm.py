"""lm-eval's log-likelihoods of continuations, with shared contexts computed once.

The choices of a question share its context. Requests with a common prefix form a group: one
forward pass over the prefix fills a cache of keys and values, from which each member continues.
Groups are sorted by length and packed, so that there is little padding, and logits are computed at
the scored positions only. The sums equal those of lm-eval's own model class up to rounding; they
are computed in float32, where lm-eval uses the model's data type.
"""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import DynamicCache

from adapruner.errors import first_line
from adapruner.evaluation.normalizer import log_sum_exp
from adapruner.evaluation.tasks.packing import Group, Request, call_tokens, groups_of, packed
from adapruner.progress import announce, console, track

TOKENS_PER_SEQUENCE = 128
"""A batch size of n allows forward passes over n times this many tokens."""
CACHE_SHARE = 4
"""Maximum tokens in the cache, as a multiple of those of a forward pass."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Maximum relative difference of a log-likelihood from lm-eval's, by the model's data type."""
LOOSE_TOLERANCE = 5e-2
"""The same for all other data types."""

Pair = tuple[Any, list[int], list[int]]
Answer = tuple[float, bool]


@dataclass
class _Sum:
    """The part of a request's answer that has been computed."""

    score: float = 0.0
    greedy: bool = True


_Target = tuple[int, int, int, _Sum]
"""Row and position in a forward pass, the token to score there, and the sum it is added to."""


@dataclass(frozen=True)
class _Row:
    """A request, the number of its group, and the number of tokens that the group shares."""

    group: int
    request: Request
    shared: int

    @property
    def rest(self) -> list[int]:
        """The tokens after the shared ones."""
        return self.request.tokens[self.shared :]

    def targets(self) -> Iterator[tuple[int, int]]:
        """The scored positions in the request's tokens, each with the token it predicts."""
        return enumerate(self.request.targets, len(self.request.tokens) - len(self.request.targets))


class SharedContextLM(HFLM):
    """lm-eval's Transformers model with a faster computation of the same log-likelihoods.

    Before the first use both computations run on a few requests. A model that can't continue from
    cached keys and values, or whose scores differ when it does, is measured by lm-eval's own code.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.works: dict[bool, bool] = {}
        """Whether the faster computation works, without (False) and with (True) a cache."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Answer]:
        """Each continuation's log-likelihood in nats, and whether it is the greedy one."""
        answers: list[Answer] = super().loglikelihood(
            requests, disable_tqdm=not console.is_terminal
        )
        return answers

    def encode(self, context: str, continuation: str) -> Pair:
        """The tokens of a request, the same as in `loglikelihood`."""
        texts = (context, continuation)
        if context:
            return texts, *self._encode_pair(context, continuation)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        if tokens[0] == self.prefix_token_id:
            return texts, tokens[:1], tokens[1:]
        return texts, [self.prefix_token_id], tokens

    def scores(self, requests: list[Pair]) -> list[float]:
        """The log-likelihood of each request in nats, without a progress bar."""
        return [score for score, _ in self._loglikelihood_tokens(requests, disable_tqdm=True)]

    def _loglikelihood_tokens(
        self, requests: list[Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[Answer]:
        groups = groups_of(
            self._request(i, context, continuation)
            for i, (_, context, continuation) in enumerate(requests)
        )
        cached = any(map(_has_rest, groups))
        if cached not in self.works:
            self.works[cached] = self._is_equal(groups, requests, cached)
        answers: list[Answer]
        if not self.works[cached]:
            answers = super()._loglikelihood_tokens(requests, disable_tqdm, **kwargs)
            return answers
        answers = self._answers(groups, "" if disable_tqdm else "zero-shot")
        for pair, answer in zip(requests, answers, strict=True):
            if pair[0] is not None:
                self.cache_hook.add_partial("loglikelihood", pair[0], answer)
        return answers

    def _request(self, number: int, context: list[int], continuation: list[int]) -> Request:
        tokens = (context + continuation)[-(self.max_length + 1) :][:-1]
        if len(continuation) > len(tokens):
            raise ValueError(
                f"a continuation of {len(continuation)} tokens does not fit in evaluation."
                f"max_length {self.max_length}"
            )
        return Request(number, tokens, continuation)

    def _is_equal(self, groups: Sequence[Group], requests: list[Pair], cached: bool) -> bool:
        """Whether the faster computation gives lm-eval's scores on two short groups.

        The groups share different numbers of tokens, so that padding is tested too.
        """
        window = getattr(self.model.config, "sliding_window", None)
        if self.backend != "causal" or (window and window <= self.max_length):
            return False
        by_size = sorted(groups, key=lambda g: sum(len(m.tokens) for m in g.members))
        sample = [g for g in by_size if _has_rest(g) == cached][:1]
        sample += [g for g in by_size if g.shared != sample[0].shared][:1]
        ends = [m for g in sample for m in (g.members[0], g.members[-1])]
        pairs = [requests[m.number] for m in ends]
        sample = groups_of(self._request(i, *pair[1:]) for i, pair in enumerate(pairs))
        expected = super()._loglikelihood_tokens(pairs, True)
        try:
            answers = self._answers(sample)
        except Exception as error:  # models reject a cache with exceptions of any type
            announce(f"contexts are not shared: {type(error).__name__}: {first_line(error, 120)}")
            return False
        tolerance = TOLERANCE.get(self.model.dtype, LOOSE_TOLERANCE)
        is_equal = all(
            abs(answer[0] - right[0]) <= tolerance * (1 + abs(right[0]))
            for answer, right in zip(answers, expected, strict=True)
        )
        if not is_equal:
            announce("contexts are not shared: this model's scores differ when it uses a cache")
        return is_equal

    def _answers(self, groups: Sequence[Group], description: str = "") -> list[Answer]:
        budget = int(self.batch_size) * TOKENS_PER_SEQUENCE

        def fits(count: int, longest: int) -> bool:
            return count * longest <= budget

        batches = packed(groups, lambda g: g.shared, fits, self._call_tokens)
        sums = [_Sum() for group in groups for _ in group.members]
        for batch in track(batches, description):
            self._score(batch, sums, budget)
        return [(total.score, total.greedy) for total in sums]

    @torch.inference_mode()
    def _score(self, groups: list[Group], sums: list[_Sum], budget: int) -> None:
        """Adds the scores of all members of `groups` to `sums`."""
        width = groups[0].shared
        rows = [_Row(i, m, g.shared) for i, g in enumerate(groups) for m in g.members]
        cache = self._prefill(groups, rows, width, sums)

        def fits(count: int, longest: int) -> bool:
            in_cache = count * (width + longest)
            return in_cache <= CACHE_SHARE * budget and count * longest <= budget

        with_rest = [row for row in rows if row.rest]
        for batch in packed(with_rest, lambda row: len(row.rest), fits, self._call_tokens):
            self._continue(batch, width, cache, sums)

    @cached_property
    def _call_tokens(self) -> int:
        layers = int(self.model.config.get_text_config().num_hidden_layers)
        return call_tokens(str(self.device), layers, self.model.num_parameters())

    def _prefill(self, groups: list[Group], rows: list[_Row], width: int, sums: list[_Sum]) -> Any:
        """Computes the shared prefixes and returns their cache, or None where no row continues.

        Prefixes are padded on the left, so that the rest of a request directly follows its prefix.
        """
        tokens = torch.zeros(len(groups), width, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for i, group in enumerate(groups):
            tokens[i, width - group.shared :] = torch.tensor(group.prefix)
            mask[i, width - group.shared :] = 1
        cached = any(row.rest for row in rows)
        cache = DynamicCache() if cached else None
        targets = [
            (row.group, width - row.shared + position, target, sums[row.request.number])
            for row in rows
            for position, target in row.targets()
            if position < row.shared
        ]
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        self._forward(targets, tokens, mask, positions, past_key_values=cache, use_cache=cached)
        return cache

    def _continue(self, rows: list[_Row], width: int, cache: Any, sums: list[_Sum]) -> None:
        """Computes the tokens of `rows` after the prefixes, each from its group's cache."""
        longest = len(rows[0].rest)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), width + longest, dtype=torch.long)
        for i, row in enumerate(rows):
            tokens[i, : len(row.rest)] = torch.tensor(row.rest)
            mask[i, width - row.shared : width + len(row.rest)] = 1
        targets = [
            (i, position - row.shared, target, sums[row.request.number])
            for i, row in enumerate(rows)
            for position, target in row.targets()
            if position >= row.shared
        ]
        positions = torch.tensor([[row.shared] for row in rows]) + torch.arange(longest)
        row_cache = selected(cache, torch.tensor([row.group for row in rows]))
        self._forward(targets, tokens, mask, positions, past_key_values=row_cache, use_cache=True)

    def _forward(
        self, targets: list[_Target], tokens: Tensor, mask: Tensor, positions: Tensor, **cache: Any
    ) -> None:
        """Runs the model on `tokens` [rows, length] and adds the targets' log-likelihoods.

        The head gets the hidden states of the targets' positions only, as one row [1, n, hidden].
        """
        # Without a target, the head still needs one position.
        scored = ([row for row, *_ in targets] or [0], [target[1] for target in targets] or [0])

        def select(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return inputs[0][scored][None], *inputs[1:]

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
        if targets:
            values = logits[0]
            target_tokens = torch.tensor([target[2] for target in targets], device=values.device)
            of_targets = values.gather(1, target_tokens[:, None]).float()
            scores = (of_targets - log_sum_exp(values))[:, 0].tolist()
            is_greedy = (values.argmax(1) == target_tokens).tolist()
            for (*_, total), score, greedy in zip(targets, scores, is_greedy, strict=True):
                total.score += score
                total.greedy &= greedy


def _has_rest(group: Group) -> bool:
    """Whether a member has tokens after the shared ones."""
    return any(len(member.tokens) > group.shared for member in group.members)


def selected(cache: Any, rows: Tensor) -> DynamicCache:
    """A new cache of these rows of `cache`, in their order; a row may occur several times."""
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return DynamicCache([(k[rows.to(k.device)], v[rows.to(v.device)]) for k, v in layers])
