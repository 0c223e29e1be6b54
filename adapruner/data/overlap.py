"""Which texts hold which others: calibrating on the test text must not go unseen.

Texts are compared case-folded and with white space collapsed. A sample is cut into pieces of 64
characters; it overlaps another text when at least half of them occur in it, at any place. So a
copy is found under another record border or in another tokenised form, and a shared phrase is not
held against it. A sample shorter than one piece overlaps a text only if it is that text. Cost is
linear in the characters of both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PIECE = 64
"""Characters of a piece: a power of two."""

_CHUNK = 1 << 22
_BASE = 0x9E3779B97F4A7C15 | 1
_MIX = np.uint64(0xD6E8FEB86659FD93)
_FILTER_BITS = 24


def normalise(text: str) -> str:
    """`text` case-folded, every run of white space one blank."""
    return " ".join(text.casefold().split())


def overlapping(samples: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Indices of the `samples` at least half of whose pieces occur in `texts`; both normalised."""
    whole = set(texts)
    same = {i for i, sample in enumerate(samples) if sample in whole}
    pieces, owners = _pieces(samples)
    if not len(pieces):
        return sorted(same)
    keys, which = np.unique(pieces, return_inverse=True)
    seen = _seen(keys, "\0".join(texts))[which]
    hits = np.bincount(owners, weights=seen, minlength=len(samples))
    total = np.bincount(owners, minlength=len(samples))
    return sorted(same.union(np.flatnonzero((total > 0) & (2 * hits >= total)).tolist()))


def _pieces(samples: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the samples' pieces, end to end, and the index of the sample each is of."""
    hashes, owners = [], []
    for index, sample in enumerate(samples):
        if len(sample) >= PIECE:
            whole = _codes(sample[: len(sample) // PIECE * PIECE])
            found = _window_hashes(whole)[::PIECE]
            hashes.append(found)
            owners.append(np.full(len(found), index, dtype=np.int64))
    if not hashes:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(hashes), np.concatenate(owners)


def _seen(keys: NDArray[np.uint64], text: str) -> NDArray[np.bool_]:
    """Which of the sorted `keys` are the hash of a window of `text`."""
    seen = np.zeros(len(keys), dtype=np.bool_)
    # A bitmap sorts out nearly all windows before the search among the keys, which is 20 times
    # dearer.
    bitmap = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)
    bitmap[_slot(keys)] = True
    for start in range(0, max(len(text) - PIECE + 1, 0), _CHUNK):
        hashes = _window_hashes(_codes(text[start : start + _CHUNK + PIECE - 1]))
        candidates = hashes[bitmap[_slot(hashes)]]
        places = np.minimum(np.searchsorted(keys, candidates), len(keys) - 1)
        seen[places[keys[places] == candidates]] = True
    return seen


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
