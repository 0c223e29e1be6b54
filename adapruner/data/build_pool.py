"""Builds the pool: five disjoint splits (calibration, objective, held-out, fine-tune, test).

Splits that share a source are separated by document: an article is whole in one of them. Splits of
different sources are compared, and refused when they hold the same text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from adapruner.data.contamination import (
    SourceUse,
    check_contamination,
    check_distinct_sources,
)
from adapruner.data.draft import Draft, Inputs, PoolSettings
from adapruner.data.own_sources import fill_finetune, fill_objective, fill_test
from adapruner.data.pool import (
    DomainSummary,
    PoolSummary,
    SourceSummary,
    SplitSummary,
    TestTexts,
    finetune_lines,
    row_text,
    write_finetune_rows,
)
from adapruner.data.samples import SampleTokenizer
from adapruner.data.shared_source import fill_from_calibration_source
from adapruner.data.texts.sources import TextSource, check_unchanged
from adapruner.errors import UserError
from adapruner.models.storage.checkpoint import read_config

__all__ = ["PoolSettings", "build_pool"]


def build_pool(
    sources: Mapping[str, TextSource], settings: PoolSettings, checkpoint: Path, out: Path
) -> None:
    """Writes the pool of `sources` (by URI) to `out`, tokenised by `checkpoint`'s tokenizer.

    - `pool.safetensors`: the token splits, see `Pool`. A sample is a window of sequence_length
      tokens; a record of at least min_tokens tokens gives up to samples_per_record of them. BOS is
      its first token if the tokenizer puts it there by default.
    - `finetune.jsonl`: the fine-tuning rows, in seeded order, see `write_finetune_rows`.
    - `test.json`: the test texts by name. A text file of evaluation.texts is there unchanged.
    - `pool.json`: the counts of every source, and the size and sha256 of every split.

    Up to max_records records of every source are read, and samples are drawn uniformly from all
    usable ones; of a long record only the beginning is tokenised. The texts are held in memory.
    Same sources, settings and seed give the same bytes.

    Raises UserError for unreadable text, too few samples, and splits that share text.
    """
    inputs = Inputs(sources, settings, SampleTokenizer(checkpoint))
    _check_sources(inputs)
    draft = Draft()
    for fill in (fill_from_calibration_source, fill_objective, fill_finetune, fill_test):
        fill(inputs, draft)
    _check_test_length(inputs, draft)
    check_contamination(draft.uses)
    check_unchanged(sources.values())
    _check_vocabulary(draft, checkpoint)
    draft.pool().write(out)
    write_finetune_rows(out, draft.finetune)
    TestTexts(texts=draft.test).write(out)
    _summary(inputs, draft).write(out)


def _check_vocabulary(draft: Draft, checkpoint: Path) -> None:
    """Some tokenizers have tokens without an embedding; a text must not use them."""
    size = read_config(checkpoint).get_text_config().vocab_size
    highest = max(int(draft.samples[split].max()) for split in ("update", "objective", "held_out"))
    if highest >= size:
        raise UserError(
            f"'{checkpoint}': its tokenizer gives token {highest}, its embedding has {size} rows; "
            "use the tokenizer that belongs to the weights"
        )


def _check_sources(inputs: Inputs) -> None:
    calibration = inputs.settings.calibration
    training = [
        *inputs.of_setting("calibration.source", calibration.source),
        *inputs.of_setting("calibration.objective_source", calibration.objective_source),
        *inputs.of_setting("finetune.source", inputs.settings.finetune.source),
    ]
    tests = [
        (f"evaluation.texts.{name}", inputs.sources[uri])
        for name, uri in inputs.settings.evaluation.texts.items()
    ]
    check_distinct_sources(training, tests)


def _check_test_length(inputs: Inputs, draft: Draft) -> None:
    length = inputs.settings.evaluation.sequence_length
    for name, text in draft.test.items():
        tokens = len(inputs.tokenizer.head(text, length))
        if tokens < length:
            raise UserError(
                f"evaluation: the test text '{name}' has {tokens} tokens, fewer than the {length} "
                "of one window: add text, or lower evaluation.sequence_length"
            )


def _summary(inputs: Inputs, draft: Draft) -> PoolSummary:
    calibration = inputs.settings.calibration
    return PoolSummary(
        seed=inputs.settings.seed,
        min_tokens=calibration.min_tokens,
        sequence_length=calibration.sequence_length,
        tokenizer=inputs.tokenizer.summary(),
        sources=[_source_summary(use, n, draft) for n, use in enumerate(draft.uses)],
        domains=_domain_summaries(draft),
        splits=_split_summaries(inputs, draft),
    )


def _source_summary(use: SourceUse, index: int, draft: Draft) -> SourceSummary:
    # The uses of calibration.source come first, in the order of its sources.
    is_calibration = use.setting == "calibration.source"
    return SourceSummary(
        setting=use.setting,
        uri=use.source.uri,
        content_hash=use.source.content_hash,
        **asdict(use.counts),
        used=draft.used[index] if is_calibration else None,
    )


def _domain_summaries(draft: Draft) -> list[DomainSummary]:
    domain, count = draft.samples["domain"], len(draft.domains)
    calibration = np.bincount(domain[: len(draft.samples["calibration"])], minlength=count)
    update = np.bincount(domain, minlength=count)
    return [
        DomainSummary(name=name, calibration=int(calibration[n]), update=int(update[n]))
        for n, name in enumerate(draft.domains)
    ]


def _split_summaries(inputs: Inputs, draft: Draft) -> dict[str, SplitSummary]:
    count = inputs.tokenizer.count
    sizes: dict[str, tuple[int, int, bytes]] = {}
    for split in ("calibration", "update", "objective", "held_out"):
        tokens = draft.samples[split]
        sizes[split] = (len(tokens), tokens.size, tokens.tobytes())
    rows, texts = draft.finetune, draft.test
    row_tokens = count(map(row_text, rows))
    sizes["finetune"] = (len(rows), row_tokens, finetune_lines(rows).encode())
    sizes["test"] = (len(texts), count(texts.values()), json.dumps(texts).encode())
    return {
        split: SplitSummary(
            available=draft.available[split],
            documents=draft.documents[split],
            used=used,
            tokens=tokens_used,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for split, (used, tokens_used, content) in sizes.items()
    }
