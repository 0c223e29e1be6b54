"""A pool under construction: its inputs, and the splits that are filled one after the other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from adapruner.config import CalibrationConfig, EvaluationConfig, FinetuneConfig, Sources
from adapruner.data.contamination import SourceUse
from adapruner.data.pool import Pool
from adapruner.data.samples import Deduplicator, Item, SampleTokenizer, read_items
from adapruner.data.splits import draw
from adapruner.data.texts.readers import read_records
from adapruner.data.texts.sources import TextSource, as_tuple
from adapruner.errors import UserError
from adapruner.progress import track

# The words are part of the seeds: another word would draw other windows with the same seed.
_WINDOW_SEEDS = {"objective": "objective", "held_out": "held_back"}


@dataclass(frozen=True)
class PoolSettings:
    """The settings that a pool depends on."""

    calibration: CalibrationConfig
    finetune: FinetuneConfig
    evaluation: EvaluationConfig
    seed: int

    @property
    def windows(self) -> dict[str, int]:
        """Numbers of windows of the splits objective and held_out."""
        calibration = self.calibration
        tokens = {
            "objective": calibration.objective_tokens,
            "held_out": calibration.held_out_tokens or calibration.objective_tokens,
        }
        return {split: max(1, n // calibration.sequence_length) for split, n in tokens.items()}

    def rng(self, purpose: str) -> random.Random:
        """The random numbers for one purpose, independent of all others."""
        return random.Random(f"{self.seed}:{purpose}")


@dataclass(frozen=True)
class Inputs:
    """What a pool is built from: the resolved sources by URI, the settings and the tokenizer."""

    sources: Mapping[str, TextSource]
    settings: PoolSettings
    tokenizer: SampleTokenizer

    def of_setting(self, setting: str, uris: Sources | None) -> list[tuple[str, TextSource]]:
        """(setting, source) for each of the URIs that a setting has."""
        return [(setting, self.sources[uri]) for uri in as_tuple(uris)]

    def read(self, setting: str, uris: Sources | None) -> tuple[list[Item], list[SourceUse]]:
        """All items of a setting's sources, without duplicates, and the use of each source.

        Raises UserError for a source that adds no item.
        """
        calibration, seen = self.settings.calibration, Deduplicator()
        items: list[Item] = []
        uses: list[SourceUse] = []
        for index, (_, source) in enumerate(self.of_setting(setting, uris)):
            records = read_records(
                source,
                text_field=calibration.text_field,
                max_records=calibration.max_records,
            )
            new, counts = read_items(
                track(records, f"reading {source.uri}"),
                index,
                self.tokenizer,
                calibration,
                seen,
            )
            if not new:
                raise UserError(
                    f"{setting}: {source.uri} has only empty or duplicate texts: {counts}"
                )
            uses.append(SourceUse.of_items(setting, source, counts, new, calibration.min_tokens))
            items += new
        return items, uses


@dataclass
class Draft:
    """The splits filled so far.

    `samples` are the tensors of `Pool` by name. `available` and `documents` are, by split, the
    number of samples (rows, texts) to draw from and the number of documents that the drawn ones
    come from. `domains` are the names of the domains; `used` counts the calibration samples of each
    source, by its index.
    """

    samples: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    finetune: list[dict[str, str]] = field(default_factory=list)
    test: dict[str, str] = field(default_factory=dict)
    available: dict[str, int] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    uses: list[SourceUse] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    used: Counter[int] = field(default_factory=Counter)

    def record(self, split: str, available: Sequence[Item], drawn: Sequence[Item]) -> None:
        """Records the sizes of a split whose items are `drawn`."""
        self.available[split] = len(available)
        self.documents[split] = len({item.document for item in drawn})

    def draw_windows(
        self,
        splits: Mapping[str, list[Item]],
        settings: PoolSettings,
        shares: Sequence[float] | None,
    ) -> None:
        """Fills objective and held_out with windows of these splits, of many documents."""
        length = settings.calibration.sequence_length
        for split, count in settings.windows.items():
            rng = settings.rng(_WINDOW_SEEDS[split])
            drawn = draw(splits[split], count, rng, shares, by_document=True)
            self.samples[split] = np.stack([item.tokens[:length] for item in drawn])
            self.record(split, splits[split], drawn)

    def pool(self) -> Pool:
        """The token splits, once all are filled."""
        return Pool(**{name: torch.from_numpy(tokens) for name, tokens in self.samples.items()})


def counts_of(uses: Sequence[SourceUse]) -> str:
    """The counts of several sources, for a message."""
    return "; ".join(f"{use.source.uri}: {use.counts}" for use in uses)
