"""Records become items: tokenised, counted, without exact duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from adapruner.config import CalibrationConfig
from adapruner.data.pool import TokenizerSummary
from adapruner.data.texts.readers import Record
from adapruner.errors import UserError

_BATCH = 256
_CHARACTERS_PER_TOKEN = 16
_MARGIN_TOKENS = 16
_T = TypeVar("_T")


class Item(NamedTuple):
    """A tokenised record, or one sample of it.

    `tokens` are the record's first tokens, int32 [<= min_tokens], or those of the sample. `windows`
    are the tokens of the record's samples, int32 [T] each; all lie in `text[:end]`. `document` is
    the index of the source and the document's name in it.
    """

    text: str
    document: tuple[int, str]
    tokens: NDArray[np.int32]
    end: int
    windows: tuple[NDArray[np.int32], ...] = ()


def samples_of(items: Iterable[Item]) -> list[Item]:
    """One item for each window of the items."""
    return [item._replace(tokens=window) for item in items for window in item.windows]


def records_of(samples: Iterable[Item]) -> list[Item]:
    """One item for each record of the samples, in their order; records have distinct texts."""
    return list({sample.text: sample for sample in samples}.values())


@dataclass
class Counts:
    """Counts of the records of a source: read = too_short + duplicate + kept."""

    read: int = 0
    too_short: int = 0
    duplicate: int = 0
    kept: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in asdict(self).items())


@dataclass
class Deduplicator:
    """The digests of all keys seen so far."""

    seen: set[bytes] = field(default_factory=set)

    def is_new(self, *keys: bytes) -> bool:
        """Whether none of `keys` was seen before. If so, all of them count as seen from now on."""
        digests = {hashlib.blake2b(key, digest_size=16).digest() for key in keys}
        if digests & self.seen:
            return False
        self.seen |= digests
        return True


class SampleTokenizer:
    """A checkpoint's tokenizer: samples begin with BOS if the tokenizer's default puts it there.

    No other special token is added. So models that need BOS (Gemma) get it in every window, and
    others see plain text, as with lm-eval's defaults.
    """

    def __init__(self, checkpoint: Path) -> None:
        from adapruner.models.storage.checkpoint import load_tokenizer

        self._tokenizer = load_tokenizer(checkpoint)
        if not self._tokenizer.is_fast:
            raise UserError(
                f"{checkpoint}: its tokenizer has no fast form (tokenizer.json): convert it first"
            )
        bos, default = self._tokenizer.bos_token_id, self._tokenizer("").input_ids
        self.prefix: list[int] = [bos] if bos is not None and default[:1] == [bos] else []

    def summary(self) -> TokenizerSummary:
        """The properties that the samples depend on."""
        return TokenizerSummary(
            type=type(self._tokenizer).__name__,
            vocabulary=len(self._tokenizer),
            begins_with_bos=bool(self.prefix),
        )

    def words(self, ids: Iterable[int]) -> list[str]:
        """Those of the tokens that are words of at least 3 letters, each once."""
        texts = (self._tokenizer.decode([i]).strip() for i in ids)
        return list(dict.fromkeys(text for text in texts if len(text) > 2 and text.isalpha()))

    def count(self, texts: Iterable[str]) -> int:
        """Total number of tokens of `texts`, without special tokens."""
        return sum(len(ids) for part in _batches(texts) for ids in self._encode(part).input_ids)

    def head(self, text: str, length: int) -> NDArray[np.int32]:
        """The first `length` tokens of `text`, including BOS, int32 [<= length]."""
        return self.heads([text], length)[0][0]

    def heads(self, texts: Sequence[str], length: int) -> list[tuple[NDArray[np.int32], int]]:
        """Of each text the first `length` tokens, including BOS, and the end of the last one.

        The end is a character index. A long text is tokenised only as far as needed.
        """
        reach = length * _CHARACTERS_PER_TOKEN
        encoded = self._encode([text[:reach] for text in texts])
        heads = []
        for index, text in enumerate(texts):
            batch, row = encoded, index
            # Near the cut a token may differ from that of the whole text, hence the margin.
            if len(text) > reach and len(batch.input_ids[row]) < length + _MARGIN_TOKENS:
                batch, row = self._encode([text]), 0
            ids = (self.prefix + batch.input_ids[row])[:length]
            last = len(ids) - len(self.prefix) - 1
            end = batch.token_to_chars(row, last).end if last >= 0 else 0
            heads.append((np.array(ids, dtype=np.int32), end))
        return heads

    def windows(
        self, tokens: NDArray[np.int32], length: int, count: int
    ) -> list[NDArray[np.int32]]:
        """Up to `count` adjacent windows of `length` tokens; each begins with BOS if they do."""
        start = len(self.prefix)
        step = length - start
        begins = range(start, len(tokens) - step + 1, step)[:count]
        return [np.concatenate([tokens[:start], tokens[i : i + step]]) for i in begins]

    def _encode(self, texts: list[str]) -> Any:
        return self._tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )


def normalise(text: str) -> str:
    """`text` case-folded, with every run of white space as one blank."""
    return " ".join(text.casefold().split())


def read_items(
    records: Iterable[Record],
    source: int,
    tokenizer: SampleTokenizer,
    calibration: CalibrationConfig,
    seen: Deduplicator,
) -> tuple[list[Item], Counts]:
    """The new items of the records of one source, in their order, and the counts of all records.

    `source` is the index of the source. Items with fewer than min_tokens tokens are included. A
    duplicate has the normalised text of an earlier record, or its first sequence_length tokens are
    a sample of one. Of the later windows, those that are an earlier sample are left out.
    """
    counts, items = Counts(), []
    min_tokens, length = calibration.min_tokens, calibration.sequence_length
    number = calibration.samples_per_record
    reach = max(min_tokens, number * length)
    for batch in _batches(records):
        heads = tokenizer.heads([record.text for record in batch], reach)
        for record, (ids, end) in zip(batch, heads, strict=True):
            counts.read += 1
            is_long = len(ids) >= min_tokens
            keys = [normalise(record.text).encode()] + [ids[:length].tobytes()] * is_long
            is_new = bool(record.text.strip()) and seen.is_new(*keys)
            if is_new:
                all_windows = tokenizer.windows(ids, length, number)
                later = (window for window in all_windows[1:] if seen.is_new(window.tobytes()))
                windows = (*all_windows[:1], *later)
                document = (source, record.document)
                items.append(Item(record.text, document, ids[:min_tokens], end, windows))
            counts.too_short += not is_long
            counts.duplicate += is_long and not is_new
            counts.kept += is_long and is_new
    return items, counts


def _batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(values)
    while batch := list(islice(rest, _BATCH)):
        yield batch
