"""The part of calibration.source that is test text: one text for each source."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from adapruner.data.contamination import SourceUse
from adapruner.data.draft import Draft, Inputs
from adapruner.data.samples import Item
from adapruner.data.splits import spread

_NAMED_BY_KIND = ("wikipedia", "news", "code")


def fill_test_split(
    inputs: Inputs, draft: Draft, records: list[Item], uses: Sequence[SourceUse]
) -> None:
    """Fills test with a text for each source that has `records` for at least one window.

    If no source has that many, each with any record has a text.
    """
    rng, length = inputs.settings.rng("test"), inputs.settings.evaluation.sequence_length
    drawn: dict[str, list[Item]] = {}
    for index, name in enumerate(test_names(uses)):
        if own := [record for record in records if record.document[0] == index]:
            drawn[name] = _test_items(inputs, own, rng)
    texts = {name: "\n\n".join(item.text for item in items) for name, items in drawn.items()}
    long = [name for name, t in texts.items() if len(inputs.tokenizer.head(t, length)) >= length]
    draft.test = {name: texts[name] for name in long or texts}
    draft.record("test", records, [item for name in draft.test for item in drawn[name]])


def _test_items(inputs: Inputs, records: list[Item], rng: random.Random) -> list[Item]:
    """The records that fill evaluation.max_windows, of many documents, in the source's order."""
    evaluation = inputs.settings.evaluation
    if evaluation.max_windows is None:
        return records
    missing, drawn = evaluation.max_windows * evaluation.sequence_length, set()
    for record in spread(records, rng):
        if missing <= 0:
            break
        drawn.add(id(record))
        missing -= inputs.tokenizer.count([record.text])
    return [record for record in records if id(record) in drawn]


def test_names(uses: Sequence[SourceUse]) -> list[str]:
    """A name for the text of each source: an embedded text's kind, else the name of its file.

    A name that was given before is followed by a number.
    """
    names: list[str] = []
    for use in uses:
        stem = Path(use.source.location.partition("#")[0]).stem
        name = use.source.kind if use.source.kind in _NAMED_BY_KIND else stem
        name = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:100] or "test"
        numbered = (f"{name}_{number}" for number in count(2))
        names.append(next(n for n in chain([name], numbered) if n not in names))
    return names
