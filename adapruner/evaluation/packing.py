"""Which requests are read together: those that begin alike in groups, those of like length in
batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

CALL_TOKENS = 64
"""What a forward pass costs beside its tokens, in tokens: reading the weights once."""

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One context with one continuation; `number` is its place among those asked for.

    `tokens` is the model's input: both without the last token, the newest `max_length` of them.
    The last len(`targets`) positions predict `targets`.
    """

    number: int
    tokens: list[int]
    targets: list[int]


@dataclass
class Group:
    """Requests whose tokens begin with the same `shared` ones."""

    shared: int
    members: list[Request]

    @property
    def prefix(self) -> list[int]:
        return self.members[0].tokens[: self.shared]


def groups_of(requests: Iterable[Request]) -> list[Group]:
    """Requests grouped by how their tokens begin, so that the fewest tokens are computed twice.

    In the tokens' order, a request joins the group before it when that saves more tokens than the
    group alone does: a group of n that shares s tokens saves (n - 1) s. One shared token (a BOS)
    makes no group.
    """
    groups: list[Group] = []
    for request in sorted(requests, key=lambda r: r.tokens):
        if groups:
            last = groups[-1]
            shared = _alike(last.prefix, request.tokens)
            size = len(last.members)
            if shared > 1 and size * shared > (size - 1) * last.shared:
                last.shared = shared
                last.members.append(request)
                continue
        groups.append(Group(len(request.tokens), [request]))
    return groups


def packed(
    items: Iterable[T], length: Callable[[T], int], fits: Callable[[int, int], bool]
) -> list[list[T]]:
    """`items`, longest first, in the batches that cost least.

    A batch costs its padded tokens and CALL_TOKENS. `fits(count, longest)` says which may be made;
    one item always may.
    """
    ordered = sorted(items, key=length, reverse=True)
    lengths = [length(item) for item in ordered]
    cost, begins = [0], [0]  # of the best batches of the first n items; where their last begins
    for end in range(1, len(ordered) + 1):
        options = []
        for begin in reversed(range(end)):
            count = end - begin
            if count > 1 and not fits(count, lengths[begin]):
                break
            options.append((cost[begin] + count * lengths[begin] + CALL_TOKENS, begin))
        best, begin = min(options)
        cost.append(best)
        begins.append(begin)
    batches: list[list[T]] = []
    end = len(ordered)
    while end:
        batches.append(ordered[begins[end] : end])
        end = begins[end]
    return batches[::-1]


def _alike(a: list[int], b: list[int]) -> int:
    """How many tokens two lists begin with in common."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
