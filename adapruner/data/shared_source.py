"""calibration.source is dealt to the calibration split and to every split without a source."""

from __future__ import annotations

import numpy as np

from adapruner.data.clusters import clusters_of
from adapruner.data.contamination import SourceUse
from adapruner.data.draft import Draft, Inputs, PoolSettings, counts_of
from adapruner.data.samples import Item, records_of, samples_of
from adapruner.data.shared_test_split import fill_test_split
from adapruner.data.splits import assign, draw, mixed, spread
from adapruner.data.texts.sources import as_tuple
from adapruner.errors import UserError

_WORDS_OF_A_CLUSTER = 3


def fill_from_calibration_source(inputs: Inputs, draft: Draft) -> None:
    """Fills calibration, and each other split whose own source is not set.

    Raises UserError for too little text.
    """
    settings = inputs.settings
    calibration = settings.calibration
    items, uses = inputs.read("calibration.source", calibration.source)
    draft.uses += uses
    samples = samples_of(i for i in items if len(i.tokens) >= calibration.min_tokens)
    needs = _needs(settings)
    uris = as_tuple(calibration.source)
    generated = [n for n, uri in enumerate(uris) if uri in calibration.generated_sources]
    splits = assign(samples, needs, settings.seed, generated)
    if splits is None:
        raise _too_little_text(calibration.min_tokens, needs, samples, uses)
    update = _fill_calibration(settings, draft, splits["calibration"])
    _fill_domains(inputs, draft, update)
    if "objective" in splits:
        draft.draw_windows(splits, settings, calibration.shares)
    if "finetune" in splits:
        _fill_finetune(settings, draft, records_of(splits["finetune"]))
    if "test" in splits:
        fill_test_split(inputs, draft, records_of(splits["test"]), uses)


def _needs(settings: PoolSettings) -> dict[str, int]:
    """Split -> the number of samples that it needs, if it shares calibration.source."""
    calibration, evaluation = settings.calibration, settings.evaluation
    needs = {"calibration": calibration.pool_size}
    if calibration.objective_source is None:
        needs |= settings.windows
    if settings.finetune.source is None:
        needs["finetune"] = 1
    if not evaluation.texts:
        per_sample = calibration.min_tokens // calibration.samples_per_record
        per_sample = max(per_sample, calibration.sequence_length)
        needs["test"] = -(-evaluation.sequence_length // per_sample)
    return needs


def _too_little_text(
    min_tokens: int, needs: dict[str, int], samples: list[Item], uses: list[SourceUse]
) -> UserError:
    required = " + ".join(f"{need} {split}" for split, need in needs.items())
    documents = len({sample.document for sample in samples})
    whole = f" in {documents} documents, each whole in one split" * (documents < len(samples))
    return UserError(
        f"calibration.source: too little text: {required} samples of records of at least "
        f"{min_tokens} tokens are required, there are {len(samples)}{whole} ({counts_of(uses)}): "
        "add text, or lower calibration.pool_size, objective_tokens, held_out_tokens or min_tokens"
    )


def _fill_calibration(settings: PoolSettings, draft: Draft, items: list[Item]) -> list[Item]:
    """Fills calibration and update; the result are the samples of update."""
    calibration = settings.calibration
    drawn = draw(items, calibration.pool_size, settings.rng("calibration"), calibration.shares)
    drawn_ids = {id(item) for item in drawn}
    others = [item for item in items if id(item) not in drawn_ids]
    missing = max(calibration.update_size - calibration.pool_size, 0)
    more = draw(others, missing, settings.rng("update"), calibration.shares)
    length = calibration.sequence_length
    draft.samples["calibration"] = np.stack([item.tokens[:length] for item in drawn])
    draft.samples["update"] = np.stack([item.tokens[:length] for item in drawn + more])
    draft.used.update(item.document[0] for item in drawn)
    draft.record("calibration", items, drawn)
    draft.record("update", items, drawn + more)
    return drawn + more


def _fill_domains(inputs: Inputs, draft: Draft, drawn: list[Item]) -> None:
    """Fills domain and its names: the sources of the `drawn` samples, or clusters of one source."""
    calibration = inputs.settings.calibration
    draft.domains = list(as_tuple(calibration.source))
    draft.samples["domain"] = np.array([item.document[0] for item in drawn], dtype=np.int32)
    if len(draft.domains) > 1:
        _check_domains(draft)
        return
    seed = inputs.settings.rng("clusters").randrange(2**32)
    reference = len(draft.samples["calibration"])
    labels, words = clusters_of(draft.samples["update"], reference, calibration.clusters, seed)
    if len(words) > 1:
        draft.samples["domain"] = labels
        draft.domains = [_cluster_name(inputs, n, ids) for n, ids in enumerate(words, 1)]


def _check_domains(draft: Draft) -> None:
    """Raises UserError for a source without a sample in the calibration pool: it has no scores."""
    sampled = set(draft.samples["domain"][: len(draft.samples["calibration"])].tolist())
    for index, name in enumerate(draft.domains):
        if index not in sampled:
            raise UserError(
                f"calibration.source: {name} has no sample in the calibration pool: raise "
                "calibration.pool_size or its share, add text to it, or leave it out"
            )


def _cluster_name(inputs: Inputs, number: int, characteristic: list[int]) -> str:
    words = inputs.tokenizer.words(characteristic)[:_WORDS_OF_A_CLUSTER]
    return f"cluster {number}: {', '.join(words)}" if words else f"cluster {number}"


def _fill_finetune(settings: PoolSettings, draft: Draft, items: list[Item]) -> None:
    rng, shares = settings.rng("finetune"), settings.calibration.shares
    rows = mixed(items, rng, shares) if shares else spread(items, rng)
    draft.finetune = [{"text": item.text} for item in rows]
    if len(as_tuple(settings.calibration.source)) > 1:
        draft.finetune = [{"text": i.text, "domain": str(i.document[0])} for i in rows]
    draft.record("finetune", rows, rows)
