"""The comparison pipeline: methods on one checkpoint, one pool and one set of test texts."""

from __future__ import annotations

from zenml import pipeline

from adapruner.comparison.cells import (
    ComparisonConfig,
    candidate_config,
    cells,
    serving,
    uses_reference,
)
from adapruner.config import PruningConfig, RunConfig
from adapruner.importance.terms import GRADIENT_GROUPS
from adapruner.pruning.reconstruction import uses_gram_matrices
from pipelines.shared_steps import run_shared_steps
from steps.compare_candidates import compare_candidates
from steps.compute_gram_matrices import compute_gram_matrices
from steps.compute_teacher_logits import compute_teacher_logits
from steps.measure_candidate import measure_candidate
from steps.measure_latency import measure_latency
from steps.publishing.results import COMPARISON
from steps.redraw_reference_subset import redraw_reference_subset

GRAM_MATRICES = {True: "compute_gram_matrices", False: "no_gram_matrices"}
"""Whether the matrices are used -> name of the step."""


TEACHER_LOGITS = "compute_teacher_logits"
"""Name of the step; a number follows where methods differ in what they distil."""


@pipeline
def compare(config: RunConfig, comparison: ComparisonConfig) -> None:
    """Measures every candidate of the comparison; what they share is computed once.

    The importance table has all statistics, so that another method leaves it as it is.

    A method that draws samples gets, for each further seed, an importance table with the samples
    of that seed.
    """
    model = config.model
    plans = {cell: candidate_config(cell, config, comparison) for cell in cells(config, comparison)}
    has_search = any(plan.search.is_searched for plan in plans.values())
    shared = run_shared_steps(
        config, serving(config, comparison), has_search, GRADIENT_GROUPS, COMPARISON
    )
    dense, pool, table = shared.dense, shared.pool, shared.importance_table
    teacher = config.finetune.teacher if comparison.finetune else None
    teachers = dict.fromkeys([teacher, *(plan.finetune.teacher for plan in plans.values())])
    logits = {
        each: compute_teacher_logits(
            dense, pool, model, each, id=f"{TEACHER_LOGITS}_{number}" if number else TEACHER_LOGITS
        )
        for number, each in enumerate(teachers)
    }

    # Other candidates get an empty result, so that they do not depend on the matrices.
    uses = {uses_gram_matrices(plan.reconstruction.method) for plan in plans.values()}
    grams = {
        is_used: compute_gram_matrices(dense, pool, model, is_used, id=GRAM_MATRICES[is_used])
        for is_used in sorted(uses)
    }

    timed = sorted({plan.pruning.latency_settings for plan in plans.values()}, key=str)
    latencies = {
        settings: measure_latency(
            dense, shared.hardware, model.device_config, settings, id=_latency_step(number, timed)
        )
        for number, settings in enumerate(timed)
    }

    tables = {config.seed: table}
    candidates = []
    for cell, plan in plans.items():
        if uses_reference(plan) and cell.seed not in tables:
            tables[cell.seed] = redraw_reference_subset(
                dense, pool, table, model, cell.seed, id=f"redraw_reference_subset_{cell.seed}"
            )
        candidate = measure_candidate(
            dense,
            pool,
            tables[cell.seed] if uses_reference(plan) else table,
            grams[uses_gram_matrices(plan.reconstruction.method)],
            logits[plan.finetune.teacher],
            shared.test_texts,
            shared.tasks,
            shared.objective_tasks,
            latencies[plan.pruning.latency_settings],
            plan,
            id=cell.key,
        )
        candidates.append(candidate)
    compare_candidates(
        config,
        comparison,
        load_model=dense,
        filter_calibration_pool=pool,
        estimate_importance=table,
        compute_gram_matrices=grams[max(uses)],
        measure_latency=latencies[timed[-1]],
        evaluate_dense=shared.dense_evaluation,
        compute_teacher_logits=logits[teacher],
        candidates=candidates,
    )


def _latency_step(number: int, timed: list[PruningConfig | None]) -> str:
    """The name of the step for the settings `timed[number]`; None of them come first."""
    return "measure_latency" if number == len(timed) - 1 else f"measure_latency_{number}"
