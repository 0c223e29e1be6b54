"""Texts -> the pool: five disjoint splits (calibration, objective, held-out, fine-tune, test).

Splits that come from one source are told apart by document: an article is whole in one of them.
Splits of different sources are compared, and refused when they hold the same text.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapruner.config import CalibrationConfig, EvaluationConfig, FinetuneConfig, Sources
from adapruner.data.contamination import Part, refuse_overlap, refuse_same_content
from adapruner.errors import UserError
from adapruner.data.pool import Pool, write
from adapruner.progress import track
from adapruner.data.readers import read_records, read_rows, read_text
from adapruner.data.samples import Counts, Deduplicator, Item, Tokens, read_items
from adapruner.data.splits import assign, draw, mixed, spread
from adapruner.data.sources import TextSource, as_tuple


@dataclass(frozen=True)
class _Job:
    """What the functions below all need."""

    sources: dict[str, TextSource]
    calibration: CalibrationConfig
    finetune: FinetuneConfig
    evaluation: EvaluationConfig
    tokens: Tokens
    seed: int

    @property
    def windows(self) -> dict[str, int]:
        """By split: how many windows the search's two texts have."""
        c = self.calibration
        held_out = c.held_out_tokens or c.objective_tokens
        wanted = {"objective": c.objective_tokens, "held_out": held_out}
        return {split: max(1, tokens // c.sequence_length) for split, tokens in wanted.items()}

    def rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}:{purpose}")

    def named(self, setting: str, given: Sources | None) -> list[tuple[str, TextSource]]:
        return [(setting, self.sources[name]) for name in as_tuple(given)]


def build_pool(
    sources: dict[str, TextSource],
    calibration: CalibrationConfig,
    finetune: FinetuneConfig,
    evaluation: EvaluationConfig,
    checkpoint: Path,
    seed: int,
    out: Path,
) -> None:
    """Write the pool of `sources` (as `texts.resolve_texts` gives them) to the directory `out`.

    - `pool.safetensors`, int32: `calibration` [pool_size, T], `source` [pool_size] (the index in
      calibration.source each sample is of), `update` [update_size or what there is, T] (the pool
      and more of its split), `objective` [objective_tokens // T, T] and `held_out`
      [held_out_tokens // T, T], with T = sequence_length. A sample is the first T tokens of a
      record of at least min_tokens tokens; BOS is its first token if the tokenizer puts it there
      by default.
    - `finetune.jsonl`: {"text"} or {"instruction", "input", "output"}, in seeded order.
    - `test.json`: name -> text. A text file named in evaluation.texts is there unchanged.
    - `summary.json`: what was read, left out and used, and a sha256 of each split.

    Up to max_records records of every source are read, and the samples are drawn uniformly from all
    that are left; of a long record only the beginning is tokenised. The texts are held in memory.
    Same sources, settings and seed give the same bytes.

    Raises UserError for text that can't be read, too few samples, or splits that share text.
    """
    job = _Job(sources, calibration, finetune, evaluation, Tokens(checkpoint), seed)
    training = [
        *job.named("calibration.source", calibration.source),
        *job.named("calibration.objective_source", calibration.objective_source),
        *job.named("finetune.source", finetune.source),
    ]
    tests = [(f"evaluation.texts.{name}", sources[x]) for name, x in evaluation.texts.items()]
    refuse_same_content(training, tests)
    pool = Pool()
    parts = _deal_calibration(job, pool)
    parts += _fill_objective(job, pool)
    parts += _fill_finetune(job, pool)
    parts += _fill_test(job, pool)
    _check_test_length(job, pool)
    refuse_overlap(parts)
    settings = {
        "seed": seed,
        "min_tokens": calibration.min_tokens,
        "sequence_length": calibration.sequence_length,
    }
    write(pool, parts, job.tokens, settings, out)


def _read(job: _Job, setting: str, given: Sources | None) -> tuple[list[Item], list[Part]]:
    c, seen = job.calibration, Deduplicator()
    items: list[Item] = []
    parts: list[Part] = []
    for index, (_, source) in enumerate(job.named(setting, given)):
        records = read_records(source, text_field=c.text_field, max_records=c.max_records)
        found, counts = read_items(
            track(records, f"reading {source.given}"),
            index,
            job.tokens,
            c.min_tokens,
            c.sequence_length,
            seen,
        )
        if not found:
            raise UserError(f"{setting}: {source.given} holds no text of its own ({counts})")
        parts.append(Part.of_items(setting, source, counts, found, c.min_tokens))
        items += found
    return items, parts


def _deal_calibration(job: _Job, pool: Pool) -> list[Part]:
    """Deal calibration.source to the calibration split and to every split without a source."""
    c, e = job.calibration, job.evaluation
    items, parts = _read(job, "calibration.source", c.source)
    kept = [item for item in items if len(item.tokens) >= c.min_tokens]
    needs = {"calibration": c.pool_size}
    if c.objective_source is None:
        needs |= job.windows
    if job.finetune.source is None:
        needs["finetune"] = 1
    if not e.texts:
        needs["test"] = -(-e.sequence_length // c.min_tokens)
    splits = assign(kept, needs, job.seed)
    if splits is None:
        wanted = " + ".join(f"{need} {split}" for split, need in needs.items())
        documents = len({item.document for item in kept})
        whole = f" in {documents} documents, each whole in one split" * (documents < len(kept))
        raise UserError(
            f"calibration.source: too little text: {wanted} samples of at least {c.min_tokens} "
            f"tokens are needed, there are {len(kept)}{whole} ({_told(parts)}): give more text, "
            "or lower calibration.pool_size, objective_tokens, held_out_tokens or min_tokens"
        )
    chosen = draw(splits["calibration"], c.pool_size, job.rng("calibration"), c.shares)
    taken = {id(item) for item in chosen}
    others = [item for item in splits["calibration"] if id(item) not in taken]
    more = draw(others, max(c.update_size - c.pool_size, 0), job.rng("update"), c.shares)
    pool.calibration = np.stack([item.tokens[: c.sequence_length] for item in chosen])
    pool.update = np.stack([item.tokens[: c.sequence_length] for item in chosen + more])
    pool.source = np.array([item.document[0] for item in chosen], dtype=np.int32)
    _note(pool, "calibration", splits["calibration"], chosen)
    if "objective" in splits:
        _choose_windows(job, pool, splits, c.shares)
    if "finetune" in splits:
        rng = job.rng("finetune")
        given = splits["finetune"]
        rows = mixed(given, rng, c.shares) if c.shares else spread(given, rng)
        pool.finetune = [{"text": item.text} for item in rows]
        _note(pool, "finetune", rows, rows)
    if "test" in splits:
        tested = _test_items(job, splits["test"])
        pool.test = {_test_name(parts): "\n\n".join(item.text for item in tested)}
        _note(pool, "test", splits["test"], tested)
    return parts


def _fill_objective(job: _Job, pool: Pool) -> list[Part]:
    """Windows of calibration.objective_source: a long record gives one, short ones are joined."""
    c = job.calibration
    if c.objective_source is None:
        return []
    items, parts = _read(job, "calibration.objective_source", c.objective_source)
    windows: list[Item] = []
    held: list[Item] = []
    for item in items:
        held.append(item)
        if sum(len(part.tokens) for part in held) >= c.sequence_length:
            text = "\n\n".join(part.text for part in held)
            tokens = held[0].tokens if len(held) == 1 else job.tokens.head(text, c.sequence_length)
            if len(tokens) >= c.sequence_length:
                windows.append(held[0]._replace(tokens=tokens))
            held = []
    splits = assign(windows, job.windows, job.seed)
    if splits is None:
        wanted = " + ".join(f"{need} {split}" for split, need in job.windows.items())
        raise UserError(
            f"calibration.objective_source: too little text: {wanted} windows of "
            f"{c.sequence_length} tokens are needed, there are {len(windows)} ({_told(parts)}): "
            "give more text, or lower calibration.objective_tokens or held_out_tokens"
        )
    _choose_windows(job, pool, splits, None)
    return parts


def _choose_windows(
    job: _Job, pool: Pool, splits: dict[str, list[Item]], shares: Sequence[float] | None
) -> None:
    length = job.calibration.sequence_length
    for split, count in job.windows.items():
        chosen = draw(splits[split], count, job.rng(split), shares, by_document=True)
        setattr(pool, split, np.stack([item.tokens[:length] for item in chosen]))
        _note(pool, split, splits[split], chosen)


def _fill_finetune(job: _Job, pool: Pool) -> list[Part]:
    c, seen = job.calibration, Deduplicator()
    parts: list[Part] = []
    for setting, source in job.named("finetune.source", job.finetune.source):
        counts, texts = Counts(), []
        rows = read_rows(source, text_field=c.text_field, max_records=c.max_records)
        for row in track(rows, f"reading {source.given}"):
            text = "\n".join(row.values())
            is_empty = not text.strip()
            is_new = not is_empty and seen.is_new(json.dumps(row, sort_keys=True).encode())
            counts.read += 1
            counts.too_short += is_empty
            counts.duplicate += not is_empty and not is_new
            counts.kept += is_new
            if is_new:
                texts.append(text)
                pool.finetune.append(row)
        if not texts:
            raise UserError(f"{setting}: {source.given} holds no text of its own ({counts})")
        parts.append(Part.of(setting, source, counts, texts, texts))
    if parts:
        job.rng("finetune").shuffle(pool.finetune)
        pool.available["finetune"] = pool.documents["finetune"] = len(pool.finetune)
    return parts


def _fill_test(job: _Job, pool: Pool) -> list[Part]:
    e, parts = job.evaluation, []
    for name, given in e.texts.items():
        setting, source = f"evaluation.texts.{name}", job.sources[given]
        limit = job.calibration.max_records
        text = read_text(source, text_field=e.text_field, max_records=limit)
        pool.test[name] = text
        parts.append(Part.of(setting, source, Counts(read=1, kept=1), [], [text]))
    if parts:
        pool.available["test"] = pool.documents["test"] = len(parts)
    return parts


def _test_items(job: _Job, items: list[Item]) -> list[Item]:
    """As many items as evaluation.max_windows needs, of many documents, in the source's order."""
    e = job.evaluation
    if e.max_windows is None:
        return items
    wanted, chosen = e.max_windows * e.sequence_length, set()
    for item in spread(items, job.rng("test")):
        if wanted <= 0:
            break
        chosen.add(id(item))
        wanted -= job.tokens.count([item.text])
    return [item for item in items if id(item) in chosen]


def _check_test_length(job: _Job, pool: Pool) -> None:
    length = job.evaluation.sequence_length
    for name, text in pool.test.items():
        if (found := len(job.tokens.head(text, length))) < length:
            raise UserError(
                f"evaluation: the test text '{name}' has {found} tokens, fewer than the {length} "
                "of one window: give more text, or lower evaluation.sequence_length"
            )


def _test_name(parts: list[Part]) -> str:
    """`wikipedia` for the embedded text, else the names of the sources' files, joined by `_`."""
    names = []
    for part in parts:
        stem = Path(part.source.location.partition("#")[0]).stem
        name = part.source.kind if part.source.kind == "wikipedia" else stem
        names.append(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"))
    return "_".join(filter(None, names))[:100] or "test"


def _told(parts: list[Part]) -> str:
    return "; ".join(f"{part.source.given}: {part.counts}" for part in parts)


def _note(pool: Pool, split: str, available: list[Item], chosen: list[Item]) -> None:
    pool.available[split] = len(available)
    pool.documents[split] = len({item.document for item in chosen})
