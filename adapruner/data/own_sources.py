"""Splits with a source of their own: objective and held-out text, fine-tuning rows, test texts."""

from __future__ import annotations

import json

from adapruner.data.contamination import SourceUse
from adapruner.data.draft import Draft, Inputs, counts_of
from adapruner.data.pool import row_text
from adapruner.data.samples import Counts, Deduplicator, Item, samples_of
from adapruner.data.splits import assign
from adapruner.data.texts.readers import read_rows, read_text
from adapruner.data.texts.sources import TextSource
from adapruner.errors import UserError
from adapruner.progress import track


def fill_objective(inputs: Inputs, draft: Draft) -> None:
    """Fills objective and held_out from calibration.objective_source, if it is set."""
    settings = inputs.settings
    calibration = settings.calibration
    if calibration.objective_source is None:
        return
    items, uses = inputs.read("calibration.objective_source", calibration.objective_source)
    draft.uses += uses
    windows = _windows(inputs, items)
    splits = assign(windows, settings.windows, settings.seed)
    if splits is None:
        required = " + ".join(f"{need} {split}" for split, need in settings.windows.items())
        raise UserError(
            f"calibration.objective_source: too little text: {required} windows of "
            f"{calibration.sequence_length} tokens are required, there are {len(windows)} "
            f"({counts_of(uses)}): add text, or lower calibration.objective_tokens or "
            "held_out_tokens"
        )
    draft.draw_windows(splits, settings, None)


def _windows(inputs: Inputs, items: list[Item]) -> list[Item]:
    """Windows of sequence_length tokens: those of each long record, one of several short ones."""
    length = inputs.settings.calibration.sequence_length
    windows: list[Item] = []
    joined: list[Item] = []
    for item in items:
        if item.windows and not joined:
            windows += samples_of([item])
            continue
        joined.append(item)
        if sum(len(part.tokens) for part in joined) < length:
            continue
        tokens = inputs.tokenizer.head("\n\n".join(part.text for part in joined), length)
        if len(tokens) >= length:
            windows.append(joined[0]._replace(tokens=tokens))
        joined = []
    return windows


def fill_finetune(inputs: Inputs, draft: Draft) -> None:
    """Fills finetune with the distinct rows of finetune.source, shuffled, if it is set."""
    sources = inputs.of_setting("finetune.source", inputs.settings.finetune.source)
    seen = Deduplicator()
    for setting, source in sources:
        rows, counts = _read_new_rows(inputs, source, seen)
        if not rows:
            raise UserError(f"{setting}: {source.uri} has only empty or duplicate texts: {counts}")
        draft.finetune += rows
        texts = [row_text(row) for row in rows]
        draft.uses.append(SourceUse.of_texts(setting, source, counts, texts, texts))
    if sources:
        inputs.settings.rng("finetune").shuffle(draft.finetune)
        draft.available["finetune"] = draft.documents["finetune"] = len(draft.finetune)


def _read_new_rows(
    inputs: Inputs, source: TextSource, seen: Deduplicator
) -> tuple[list[dict[str, str]], Counts]:
    calibration = inputs.settings.calibration
    counts = Counts()
    new_rows = []
    rows = read_rows(source, text_field=calibration.text_field, max_records=calibration.max_records)
    for row in track(rows, f"reading {source.uri}"):
        is_empty = not row_text(row).strip()
        is_new = not is_empty and seen.is_new(json.dumps(row, sort_keys=True).encode())
        counts.read += 1
        counts.too_short += is_empty
        counts.duplicate += not is_empty and not is_new
        counts.kept += is_new
        if is_new:
            new_rows.append(row)
    return new_rows, counts


def fill_test(inputs: Inputs, draft: Draft) -> None:
    """Fills test with the whole texts of evaluation.texts, if there are any."""
    evaluation = inputs.settings.evaluation
    for name, uri in evaluation.texts.items():
        source = inputs.sources[uri]
        limit = inputs.settings.calibration.max_records
        text = read_text(source, text_field=evaluation.text_field, max_records=limit)
        draft.test[name] = text
        counts = Counts(read=1, kept=1)
        draft.uses.append(
            SourceUse.of_texts(f"evaluation.texts.{name}", source, counts, [], [text])
        )
    if evaluation.texts:
        draft.available["test"] = draft.documents["test"] = len(evaluation.texts)
