"""Documents are whole in one split, and sources keep their shares."""

from __future__ import annotations

import random

import numpy as np
import pytest

from adapruner.data.samples import Item
from adapruner.data.splits import assign, draw, mixed, spread

SHARES = (0.5, 0.25, 0.25)


def items_of(*sizes: int) -> list[Item]:
    """One-token items of sources of these sizes, two in a document."""
    return [
        Item(f"{source}-{n}", (source, f"document {n // 2}"), np.array([n], np.int32), 1)
        for source, size in enumerate(sizes)
        for n in range(size)
    ]


def counts(items: list[Item]) -> list[int]:
    sources = [item.document[0] for item in items]
    return [sources.count(source) for source in range(3)]


def test_assigned_documents_are_whole_and_meet_the_needs() -> None:
    items, needs = items_of(40, 40), {"calibration": 30, "test": 10}
    splits = assign(items, needs, seed=0)
    assert splits is not None
    documents = {split: {item.document for item in part} for split, part in splits.items()}
    assert not documents["calibration"] & documents["test"]
    assert sum(map(len, splits.values())) == len(items)
    assert all(len(splits[split]) >= need for split, need in needs.items())


def test_an_untested_source_is_in_every_split_but_test() -> None:
    items = items_of(40, 40)
    splits = assign(items, {"calibration": 10, "finetune": 5, "test": 10}, 0, untested=[1])
    assert splits is not None
    assert counts(splits["test"])[1] == 0 < counts(splits["test"])[0]
    assert counts(splits["calibration"])[1] > 0 < counts(splits["finetune"])[1]
    assert sum(map(len, splits.values())) == 80


def test_needs_beyond_all_items_are_refused() -> None:
    assert assign(items_of(10), {"calibration": 8, "test": 3}, seed=0) is None


def test_one_large_document_can_not_meet_two_needs() -> None:
    items = [item._replace(document=(0, "the only one")) for item in items_of(40)]
    assert assign(items, {"calibration": 8, "test": 3}, seed=0) is None


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
def test_other_sources_provide_what_one_lacks(
    sizes: tuple[int, ...], shares: tuple[float, ...] | None, size: int, expected: list[int]
) -> None:
    drawn = draw(items_of(*sizes), size, random.Random(0), shares)
    assert len({id(item) for item in drawn}) == len(drawn) == size
    assert sorted(counts(drawn)) == sorted(expected)
    if shares is None or len(set(shares)) == len(shares):
        assert counts(drawn)[0] == expected[0]


def test_every_prefix_of_a_mixed_order_has_the_shares() -> None:
    order = mixed(items_of(40, 12, 40), random.Random(0), SHARES)
    assert counts(order)[1] == 12, "it ends where a source is exhausted"
    for end in range(4, len(order), 4):
        prefix = counts(order[:end])
        assert all(abs(n - end * share) <= 1 for n, share in zip(prefix, SHARES, strict=True))


def test_a_source_without_a_share_is_not_in_a_mixed_order() -> None:
    order = mixed(items_of(9, 9), random.Random(0), (1.0, 0.0))
    assert {item.document[0] for item in order} == {0}


def test_every_prefix_of_a_spread_order_has_as_many_documents_as_possible() -> None:
    order = spread(items_of(40), random.Random(0))
    assert len({item.document for item in order[:20]}) == 20
    assert sorted(item.text for item in order) == sorted(item.text for item in items_of(40))
