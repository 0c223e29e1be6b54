"""Batching of requests: requests with a common prefix form groups, similar lengths form batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

CALL_TOKENS = 64
"""The fixed cost of a forward pass on a CPU (reading the weights once), in tokens."""

LAUNCH_SECONDS, FLOPS = 8.5e-4, 2e14
"""On a GPU: the seconds in which a layer's kernels are launched, and operations in a second."""

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One context with one continuation.

    `number` is its place in the list of requests. `tokens` is the model's input: context and
    continuation without the last token, truncated to the last `max_length` tokens. The last
    len(`targets`) positions predict `targets`.
    """

    number: int
    tokens: list[int]
    targets: list[int]


@dataclass
class Group:
    """Requests whose first `shared` tokens are equal."""

    shared: int
    members: list[Request]

    @property
    def prefix(self) -> list[int]:
        """The shared tokens."""
        return self.members[0].tokens[: self.shared]


def groups_of(requests: Iterable[Request]) -> list[Group]:
    """Groups the requests by common prefixes, so that few tokens are computed more than once.

    Requests are sorted by their tokens. One joins the preceding group when the larger group saves
    more tokens: a group of n that shares s tokens saves (n - 1) s. A single shared token (a BOS)
    does not make a group.
    """
    groups: list[Group] = []
    for request in sorted(requests, key=lambda r: r.tokens):
        if groups:
            last = groups[-1]
            shared = _common_length(last.prefix, request.tokens)
            size = len(last.members)
            if shared > 1 and size * shared > (size - 1) * last.shared:
                last.shared = shared
                last.members.append(request)
                continue
        groups.append(Group(len(request.tokens), [request]))
    return groups


def call_tokens(device: str, layers: int, params: int) -> int:
    """The fixed cost of a forward pass, in tokens, of a model on a `device`, such as "cuda:0".

    A GPU waits for the launch of the kernels, in which it could compute tokens of 2 `params`
    operations each: thousands for a small model.
    """
    if device.startswith("cpu"):
        return CALL_TOKENS
    return max(int(LAUNCH_SECONDS * layers * FLOPS / (2 * params)), CALL_TOKENS)


def packed(
    items: Iterable[T],
    length: Callable[[T], int],
    fits: Callable[[int, int], bool],
    fixed: int = CALL_TOKENS,
) -> list[list[T]]:
    """`items`, longest first, in the batches with the lowest total cost (by dynamic programming).

    The cost of a batch is its padded tokens plus `fixed`, that of a pass in tokens, see
    `call_tokens`. `fits(count, longest)` says whether a batch is allowed; one item always is.
    """
    ordered = sorted(items, key=length, reverse=True)
    lengths = [length(item) for item in ordered]
    # For the first n items: the cost of their best batches, and where the last batch starts.
    costs, starts = [0], [0]
    for end in range(1, len(ordered) + 1):
        options = []
        for start in reversed(range(end)):
            count = end - start
            if count > 1 and not fits(count, lengths[start]):
                break
            options.append((costs[start] + count * lengths[start] + fixed, start))
        cost, start = min(options)
        costs.append(cost)
        starts.append(start)
    batches: list[list[T]] = []
    end = len(ordered)
    while end:
        batches.append(ordered[starts[end] : end])
        end = starts[end]
    return batches[::-1]


def _common_length(a: list[int], b: list[int]) -> int:
    """The number of tokens in the longest common prefix."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
