"""Splits that come from different sources are refused when they hold the same text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from adapruner.errors import UserError
from adapruner.data.overlap import PIECE, normalise, overlapping
from adapruner.data.samples import Counts, Item
from adapruner.data.sources import TextSource

_EXAMPLE_CHARACTERS = 80
_TELLING_CHARACTERS = 8 * PIECE


@dataclass(frozen=True)
class Part:
    """What one source gives to one setting: samples to look for elsewhere, texts to look in.

    Both are normalised. A test text has no samples: tests may hold the same text as one another.
    """

    setting: str
    source: TextSource
    counts: Counts
    samples: list[str]
    texts: list[str]

    @classmethod
    def of(
        cls,
        setting: str,
        source: TextSource,
        counts: Counts,
        samples: Iterable[str],
        texts: Iterable[str],
    ) -> Part:
        """A part of texts as they were read."""
        return cls(setting, source, counts, [*map(normalise, samples)], [*map(normalise, texts)])

    @classmethod
    def of_items(
        cls, setting: str, source: TextSource, counts: Counts, items: Sequence[Item], minimum: int
    ) -> Part:
        """A part of items: their samples, with enough around a short one to tell it by.

        Headings and the like, which any two texts may share, are not looked for: what has neither
        `minimum` tokens nor two pieces.
        """
        samples = (
            item.text[: max(item.end, _TELLING_CHARACTERS)]
            for item in items
            if len(item.tokens) >= minimum or len(item.text) >= 2 * PIECE
        )
        return cls.of(setting, source, counts, samples, (item.text for item in items))


def refuse_same_content(
    training: Sequence[tuple[str, TextSource]], tests: Sequence[tuple[str, TextSource]]
) -> None:
    """Refuse, before anything is read, one content under two settings; tests may share one."""
    pairs = [*combinations(training, 2), *((one, test) for one in training for test in tests)]
    for (setting, source), (other, other_source) in pairs:
        if setting != other and source.content_hash == other_source.content_hash:
            raise UserError(
                f"{setting} {source.given} and {other} {other_source.given} are the same text, and "
                "splits must be disjoint: give another text, or leave the second out: a split "
                "without a text of its own is cut from calibration.source"
            )


def refuse_overlap(parts: Sequence[Part]) -> None:
    """Refuse parts of different settings that overlap, in the sense of `overlap.overlapping`."""
    for one, other in combinations(parts, 2):
        if one.setting == other.setting or not one.samples:
            continue
        if shared := overlapping(one.samples, other.texts):
            example = one.samples[shared[0]][:_EXAMPLE_CHARACTERS]
            raise UserError(
                f"{one.setting} {one.source.given} and {other.setting} {other.source.given} "
                f"overlap: {len(shared)} of {len(one.samples)} samples of the first are in the "
                f"second, such as '{example}...'; splits must be disjoint: take the shared text "
                "out of one of them"
            )
