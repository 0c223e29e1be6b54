"""Methods against each other: on one checkpoint, one pool, one test text."""

from __future__ import annotations

from zenml import pipeline

from adapruner.comparison import ComparisonConfig, cells, draws_samples, settings_of
from adapruner.config import RunConfig
from steps.cache import forget_vanished
from steps.compare_candidates import compare_candidates
from steps.estimate_importance import estimate_importance
from steps.evaluate import evaluate
from steps.expect_tokens import expect_tokens
from steps.filter_calibration_pool import filter_calibration_pool
from steps.load_model import load_model
from steps.measure_candidate import measure_candidate
from steps.rereference import rereference
from steps.resolve_source import resolve_source
from steps.results import COMPARISON
from steps.take_test_texts import take_test_texts


@pipeline
def compare(config: RunConfig, comparison: ComparisonConfig) -> None:
    """Every cell of the comparison; what the cells share is computed once.

    A method that draws samples gets, for each further seed, the table with that seed's samples.
    """
    forget_vanished()
    model, seed = config.model, config.seed

    source, texts, tasks = resolve_source(config, COMPARISON)
    dense = load_model(source)
    tested = config.evaluation.only("texts", "text_field", "sequence_length", "max_windows")
    pool = filter_calibration_pool(
        texts, dense, config.calibration, config.finetune, tested, seed,
        model.on if config.calibration.writes_its_own else None,
    )  # fmt: skip
    test = take_test_texts(pool)
    table = estimate_importance(dense, pool, model, config.search.set_size, seed)
    quality = config.evaluation.quality
    measured = evaluate(dense, test, tasks, model.on, quality, id="evaluate_dense")
    wanted = config.finetune.expectation if comparison.finetune else None
    expected = expect_tokens(dense, pool, model, wanted)

    tables = {seed: table}
    candidates = []
    for cell in cells(config, comparison):
        if draws_samples(cell) and cell.seed not in tables:
            tables[cell.seed] = rereference(
                dense, pool, table, model, cell.seed, id=f"rereference_{cell.seed}"
            )
        own = tables[cell.seed] if draws_samples(cell) else table
        settings = settings_of(cell, config, comparison)
        shared = (dense, pool, own, expected, test, tasks)
        candidates.append(measure_candidate(*shared, settings, id=cell.key))
    compare_candidates(
        config,
        comparison,
        load_model=dense,
        filter_calibration_pool=pool,
        estimate_importance=table,
        evaluate_dense=measured,
        expect_tokens=expected,
        candidates=candidates,
    )
