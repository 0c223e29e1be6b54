"""Assigns documents to splits, and draws samples from a split."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence

from adapruner.data.samples import Item

Document = tuple[int, str]

SHARES = {"calibration": 0.3, "objective": 0.1, "held_out": 0.1, "finetune": 0.3, "test": 0.2}
"""Relative shares of the splits in the items beyond all needs."""


def assign(
    items: Sequence[Item], needs: Mapping[str, int], seed: int, untested: Collection[int] = ()
) -> dict[str, list[Item]] | None:
    """Items by split; a document is whole in one split. None when a need can't be met.

    `needs` are the numbers of items that the splits require. Documents are dealt in seeded order,
    each to the split that is furthest from its goal: its need and its share of the rest. If large
    documents make that fail, documents are dealt largest first. No document of the sources
    `untested`, given by index, is in the split test.
    """
    spare = len(items) - sum(needs.values())
    if spare < 0:
        return None
    shares = sum(SHARES[split] for split in needs)
    goals = {split: need + spare * SHARES[split] / shares for split, need in needs.items()}
    sizes: dict[Document, int] = {}
    for item in items:
        sizes[item.document] = sizes.get(item.document, 0) + 1
    shuffled = list(sizes)
    random.Random(f"{seed}:documents").shuffle(shuffled)
    for order in (shuffled, sorted(shuffled, key=lambda document: -sizes[document])):
        filled = dict.fromkeys(goals, 0)
        chosen: dict[Document, str] = {}
        for document in order:
            is_untested = document[0] in untested
            open_to_it = (name for name in filled if not (is_untested and name == "test"))
            split = min(open_to_it, key=lambda name: filled[name] / goals[name])
            chosen[document] = split
            filled[split] += sizes[document]
        if all(filled[split] >= need for split, need in needs.items()):
            return {s: [i for i in items if chosen[i.document] == s] for s in goals}
    return None


def draw(
    items: Sequence[Item],
    size: int,
    rng: random.Random,
    shares: Sequence[float] | None = None,
    *,
    by_document: bool = False,
) -> list[Item]:
    """`size` items, with each source's share (default: equal shares).

    If a source has fewer items than its share, the others provide the rest. Within a source, items
    are drawn uniformly at random or, with `by_document`, from as many documents as possible.
    """
    groups = _by_source(items)
    parts = {source: shares[source] if shares else 1.0 for source in groups}
    drawn: list[Item] = []
    # The scarcest source comes first, so that the others can provide what it lacks.
    for source in sorted(groups, key=lambda s: len(groups[s]) / max(parts[s], 1e-9)):
        remaining = sum(parts.values())
        requested = (size - len(drawn)) * (parts.pop(source) / remaining if remaining else 1.0)
        group, count = groups[source], min(math.ceil(requested - 1e-9), len(groups[source]))
        drawn += spread(group, rng)[:count] if by_document else rng.sample(group, count)
    rng.shuffle(drawn)
    return drawn


def mixed(
    items: Sequence[Item], rng: random.Random, shares: Sequence[float] | None = None
) -> list[Item]:
    """Items in an order whose every prefix has each source's share (default: equal shares).

    Within a source, every prefix comes from as many documents as possible. The order ends where a
    source with a share is exhausted.
    """
    groups = {source: spread(group, rng) for source, group in _by_source(items).items()}
    parts = {source: shares[source] if shares else 1.0 for source in groups}
    used = dict.fromkeys((s for s in groups if parts[s]), 0)
    order = []
    while used:
        source = min(used, key=lambda s: (used[s] + 1) / parts[s])
        if used[source] == len(groups[source]):
            break
        order.append(groups[source][used[source]])
        used[source] += 1
    return order


def _by_source(items: Sequence[Item]) -> dict[int, list[Item]]:
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.document[0], []).append(item)
    return groups


def spread(items: Sequence[Item], rng: random.Random) -> list[Item]:
    """The items in an order whose every prefix comes from as many documents as possible."""
    by_document: dict[Document, list[Item]] = {}
    for item in items:
        by_document.setdefault(item.document, []).append(item)
    queues = list(by_document.values())
    rng.shuffle(queues)
    for queue in queues:
        rng.shuffle(queue)
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
