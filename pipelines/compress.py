"""The compression pipeline: from a checkpoint to a smaller one in the model registry."""

from __future__ import annotations

from zenml import pipeline

from adapruner.config import RunConfig
from adapruner.importance.needs import gradient_groups
from adapruner.pruning.reconstruction import uses_gram_matrices
from pipelines.shared_steps import run_shared_steps
from steps.compare_behaviour import compare_behaviour
from steps.compute_gram_matrices import compute_gram_matrices
from steps.compute_teacher_logits import compute_teacher_logits
from steps.evaluate import evaluate
from steps.export import export
from steps.finetune import finetune
from steps.measure_efficiency import measure_efficiency
from steps.measure_latency import measure_latency
from steps.measure_recovery import measure_recovery
from steps.prune import prune
from steps.register import register
from steps.report import report
from steps.search import search


@pipeline
def compress(config: RunConfig) -> None:
    """Estimates importance, searches a plan, prunes, fine-tunes, evaluates, reports, registers.

    A step gets only the sections of the configuration that it depends on, so that a changed setting
    leaves the steps before it cached.
    """
    model, device, evaluation = config.model, config.model.device_config, config.evaluation
    groups = gradient_groups(config)
    shared = run_shared_steps(config, config.serving, config.search.is_searched, groups)
    dense, pool, texts = shared.dense, shared.pool, shared.test_texts

    is_used = uses_gram_matrices(config.reconstruction.method)
    grams = compute_gram_matrices(dense, pool, model, is_used)
    latency = measure_latency(dense, shared.hardware, device, config.pruning.latency_settings)
    plan = search(
        dense, pool, shared.importance_table, grams, shared.objective_tasks, latency,
        config.plan_config,
    )  # fmt: skip
    pruned = prune(dense, plan, pool, grams, model, config.reconstruction)
    logits = compute_teacher_logits(dense, pool, model, config.finetune.teacher)
    start = dense if config.finetune.starts_dense else pruned
    finetuned = finetune(pruned, start, logits, pool, model, config.finetune, config.seed)

    exports = export(finetuned, config.export)

    quality = evaluation.quality
    evaluations = {
        name: evaluate(checkpoint, texts, shared.tasks, device, quality, id=name)
        for name, checkpoint in (("evaluate_pruned", pruned), ("evaluate_finetuned", finetuned))
    }
    speed = ("speed", "batch_sizes", "prompt_tokens", "new_tokens", "repeats", "peak_memory")
    efficiency = measure_efficiency(dense, pruned, shared.hardware, model, evaluation.only(*speed))
    windows = ("prompts", "behaviour_windows", "sequence_length", "max_windows")
    tuning = measure_recovery(
        pruned, start, logits, pool, finetuned, exports, shared.hardware, model, config.finetune,
        evaluation.only(*speed),
    )  # fmt: skip
    behaviour = compare_behaviour(dense, pruned, finetuned, texts, model, evaluation.only(*windows))
    written = report(
        config,
        resolve_source=shared.source,
        texts=shared.texts,
        load_model=dense,
        filter_calibration_pool=pool,
        estimate_importance=shared.importance_table,
        compute_gram_matrices=grams,
        measure_latency=latency,
        search=plan,
        prune=pruned,
        compute_teacher_logits=logits,
        finetune=finetuned,
        measure_recovery=tuning,
        evaluate_dense=shared.dense_evaluation,
        measure_efficiency=efficiency,
        compare_behaviour=behaviour,
        **evaluations,
    )
    register(config, written, finetuned, exports)
