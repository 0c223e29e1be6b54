"""Methods against each other: on one checkpoint, one pool, one test text."""

from __future__ import annotations

from zenml import pipeline

from adapruner.comparison.cells import ComparisonConfig, cells, draws_samples, settings_of
from adapruner.config import RunConfig
from pipelines.shared_steps import open_with
from steps.compare_candidates import compare_candidates
from steps.compute_teacher_logits import expect_tokens
from steps.measure_candidate import measure_candidate
from steps.redraw_reference_subset import rereference
from steps.publishing.results import COMPARISON


@pipeline
def compare(config: RunConfig, comparison: ComparisonConfig) -> None:
    """Every cell of the comparison; what the cells share is computed once.

    A method that draws samples gets, for each further seed, the table with that seed's samples.
    """
    model, seed = config.model, config.seed
    begun = open_with(config, COMPARISON)
    dense, pool, table = begun.dense, begun.pool, begun.table
    wanted = config.finetune.teacher if comparison.finetune else None
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
        shared = (dense, pool, own, expected, begun.test, begun.tasks)
        candidates.append(measure_candidate(*shared, settings, id=cell.key))
    compare_candidates(
        config,
        comparison,
        load_model=dense,
        filter_calibration_pool=pool,
        estimate_importance=table,
        evaluate_dense=begun.measured,
        expect_tokens=expected,
        candidates=candidates,
    )
