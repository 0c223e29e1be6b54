"""Shares of sources: kept as far as the sources reach, in every beginning of an order."""

from __future__ import annotations

import random

import numpy as np
import pytest

from adapruner.data.samples import Item
from adapruner.data.splits import draw, mixed

SHARES = (0.5, 0.25, 0.25)


def items_of(*sizes: int) -> list[Item]:
    return [
        Item(f"{source}-{n}", (source, f"document {n // 2}"), np.array([n], np.int32), 1)
        for source, size in enumerate(sizes)
        for n in range(size)
    ]


def counts(items: list[Item]) -> list[int]:
    sources = [item.document[0] for item in items]
    return [sources.count(source) for source in range(3)]


@pytest.mark.parametrize(
    ("sizes", "shares", "size", "expected"),
    [
        ((50, 50, 50), None, 30, [10, 10, 10]),
        ((50, 50, 50), (0.2, 0.8, 0.0), 30, [6, 24, 0]),
        ((50, 10, 50), (0.2, 0.6, 0.2), 30, [10, 10, 10]),
        ((2, 50, 50), None, 30, [2, 14, 14]),
        ((5, 5, 5), (1.0, 0.0, 0.0), 12, [5, 5, 2]),
    ],
)
def test_what_a_source_lacks_the_others_give(
    sizes: tuple[int, ...], shares: tuple[float, ...] | None, size: int, expected: list[int]
) -> None:
    drawn = draw(items_of(*sizes), size, random.Random(0), shares)
    assert len({id(item) for item in drawn}) == len(drawn) == size
    assert sorted(counts(drawn)) == sorted(expected)
    if shares is None or len(set(shares)) == len(shares):
        assert counts(drawn)[0] == expected[0]


def test_every_beginning_of_a_mixed_order_holds_the_shares() -> None:
    order = mixed(items_of(40, 12, 40), random.Random(0), SHARES)
    assert counts(order)[1] == 12, "it ends where a source has no more to give"
    for end in range(4, len(order), 4):
        found = counts(order[:end])
        assert all(abs(n - end * share) <= 1 for n, share in zip(found, SHARES, strict=True))
    of_first = [item.document for item in order if item.document[0] == 0]
    assert len(set(of_first[:20])) == 20, "of as many documents as can be"
    assert not [i for i in mixed(items_of(9, 9), random.Random(0), (1.0, 0.0)) if i.document[0]]
