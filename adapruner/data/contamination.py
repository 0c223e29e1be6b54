"""Contamination: text of one split that also occurs in another. It is refused.

Texts are compared case-folded and with white space collapsed. A sample is divided into pieces of 64
characters; another text contaminates it when at least half of the pieces occur in that text, at any
position. So a copy is detected under other record borders or another tokenisation, and a shared
phrase does not count. A sample shorter than one piece is compared as a whole. The cost is linear in
the characters of both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from adapruner.data.samples import Counts, Item, normalise
from adapruner.data.texts.sources import TextSource
from adapruner.errors import UserError

PIECE = 64
"""Characters of a piece: a power of two."""

_CHUNK = 1 << 22
_BASE = 0x9E3779B97F4A7C15 | 1
_MIX = np.uint64(0xD6E8FEB86659FD93)
_FILTER_BITS = 24
_EXAMPLE_CHARACTERS = 80
_CONTEXT_CHARACTERS = 8 * PIECE


@dataclass(frozen=True)
class SourceUse:
    """The text that one setting uses of one source, normalised.

    `samples` are searched for in the `texts` of other settings. Test texts have no samples, as they
    may share text with one another.
    """

    setting: str
    source: TextSource
    counts: Counts
    samples: list[str]
    texts: list[str]

    @classmethod
    def of_texts(
        cls,
        setting: str,
        source: TextSource,
        counts: Counts,
        samples: Iterable[str],
        texts: Iterable[str],
    ) -> SourceUse:
        """The use of a source whose samples and texts are not yet normalised."""
        return cls(setting, source, counts, [*map(normalise, samples)], [*map(normalise, texts)])

    @classmethod
    def of_items(
        cls, setting: str, source: TextSource, counts: Counts, items: Sequence[Item], minimum: int
    ) -> SourceUse:
        """The use of a source as items.

        Items with fewer than `minimum` tokens and fewer than two pieces are no samples: headings
        and the like occur in any text.
        """
        samples = chain.from_iterable(
            _sampled_text(item)
            for item in items
            if len(item.tokens) >= minimum or len(item.text) >= 2 * PIECE
        )
        return cls.of_texts(setting, source, counts, samples, (item.text for item in items))


def _sampled_text(item: Item) -> list[str]:
    """The text that an item's windows cover, in a part for each window.

    Where windows are short, a part covers several; a single short one is extended by the text that
    follows it.
    """
    text = item.text[: max(item.end, _CONTEXT_CHARACTERS)]
    parts = max(1, min(len(item.windows), len(text) // _CONTEXT_CHARACTERS))
    size = -(-len(text) // parts)
    return [text[start : start + size] for start in range(0, len(text), size)]


def check_distinct_sources(
    training: Sequence[tuple[str, TextSource]], tests: Sequence[tuple[str, TextSource]]
) -> None:
    """Raises UserError when two settings have sources of the same content.

    The arguments are pairs of setting and source. Several test texts may be the same.
    """
    pairs = [*combinations(training, 2), *((one, test) for one in training for test in tests)]
    for (setting, source), (other, other_source) in pairs:
        if setting != other and source.content_hash == other_source.content_hash:
            raise UserError(
                f"{setting} {source.uri} and {other} {other_source.uri} are the same text, but "
                "splits must be disjoint: use another text, or remove the second setting: a split "
                "without a source gets a part of calibration.source"
            )


def check_contamination(uses: Sequence[SourceUse]) -> None:
    """Raises UserError when samples of one setting occur in the text of another."""
    for one, other in combinations(uses, 2):
        if one.setting == other.setting or not one.samples:
            continue
        if shared := contaminated(one.samples, other.texts):
            example = one.samples[shared[0]][:_EXAMPLE_CHARACTERS]
            raise UserError(
                f"contamination: {len(shared)} of {len(one.samples)} samples of {one.setting} "
                f"{one.source.uri} occur in {other.setting} {other.source.uri}, such as "
                f"'{example}...'; splits must be disjoint: remove the shared text from one of them"
            )


def contaminated(samples: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Indices of the `samples` at least half of whose pieces occur in `texts`; both normalised."""
    whole = set(texts)
    equal = {i for i, sample in enumerate(samples) if sample in whole}
    pieces, owners = _pieces(samples)
    if not len(pieces):
        return sorted(equal)
    keys, positions = np.unique(pieces, return_inverse=True)
    occurs = _occurring(keys, "\0".join(texts))[positions]
    hits = np.bincount(owners, weights=occurs, minlength=len(samples))
    total = np.bincount(owners, minlength=len(samples))
    return sorted(equal.union(np.flatnonzero((total > 0) & (2 * hits >= total)).tolist()))


def _pieces(samples: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of all pieces, end to end, and the index of the sample that each belongs to."""
    hashes, owners = [], []
    for index, sample in enumerate(samples):
        if len(sample) >= PIECE:
            whole = _codes(sample[: len(sample) // PIECE * PIECE])
            pieces = _window_hashes(whole)[::PIECE]
            hashes.append(pieces)
            owners.append(np.full(len(pieces), index, dtype=np.int64))
    if not hashes:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(hashes), np.concatenate(owners)


def _occurring(keys: NDArray[np.uint64], text: str) -> NDArray[np.bool_]:
    """Which of the sorted `keys` are the hash of a window of `text`."""
    occurs = np.zeros(len(keys), dtype=np.bool_)
    # A bitmap excludes nearly all windows before the search among the keys, which costs 20 times
    # as much.
    bitmap = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)
    bitmap[_slot(keys)] = True
    for start in range(0, max(len(text) - PIECE + 1, 0), _CHUNK):
        hashes = _window_hashes(_codes(text[start : start + _CHUNK + PIECE - 1]))
        candidates = hashes[bitmap[_slot(hashes)]]
        places = np.minimum(np.searchsorted(keys, candidates), len(keys) - 1)
        occurs[places[keys[places] == candidates]] = True
    return occurs


def _codes(text: str) -> NDArray[np.uint64]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64) + np.uint64(1)


def _window_hashes(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Polynomial hash modulo 2^64 of every window of PIECE codes, by doubling the window."""
    hashes, width = codes, 1
    while width < PIECE:
        factor = np.uint64(pow(_BASE, width, 1 << 64))
        hashes = hashes[:-width] * factor + hashes[width:]
        width *= 2
    return hashes


def _slot(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    slots: NDArray[np.uint64] = (hashes * _MIX) >> np.uint64(64 - _FILTER_BITS)
    return slots
