"""From a checkpoint to a smaller one, registered: the main job."""

from __future__ import annotations

from zenml import pipeline

from adapruner.config import RunConfig
from pipelines.shared_steps import open_with
from steps.compare_behaviour import compare_behaviour
from steps.evaluate import evaluate
from steps.compute_teacher_logits import expect_tokens
from steps.finetune import finetune
from steps.measure_efficiency import measure_speed
from steps.prune import prune
from steps.register import register
from steps.report import report
from steps.search import search


@pipeline
def compress(config: RunConfig) -> None:
    """Find out what the model can do without, take it out, heal, measure, register.

    Each step gets the sections of the configuration that it depends on, so that a changed setting
    leaves the steps before it cached.
    """
    model, seed = config.model, config.seed
    begun = open_with(config)
    dense, pool, table = begun.dense, begun.pool, begun.table

    plan = search(
        dense, pool, table, model, config.search, config.pruning, config.reconstruction, seed
    )
    pruned = prune(dense, plan, pool, model, config.reconstruction)
    expected = expect_tokens(dense, pool, model, config.finetune.teacher)
    finetuned = finetune(pruned, expected, pool, model, config.finetune, seed)

    quality = config.evaluation.quality
    measured = {
        name: evaluate(
            checkpoint, begun.test, begun.tasks, model.device_config, quality, id=f"evaluate_{name}"
        )
        for name, checkpoint in (("pruned", pruned), ("finetuned", finetuned))
    }
    timed = config.evaluation.only(
        "speed", "batch_sizes", "prompt_tokens", "new_tokens", "repeats", "peak_memory"
    )
    speed = measure_speed(dense, pruned, model, timed)
    spoken = config.evaluation.only(
        "prompts", "behaviour_windows", "sequence_length", "max_windows"
    )
    behaviour = compare_behaviour(dense, pruned, finetuned, begun.test, model, spoken)

    written = report(
        config,
        resolve_source=begun.source,
        texts=begun.texts,
        load_model=dense,
        filter_calibration_pool=pool,
        estimate_importance=table,
        search=plan,
        prune=pruned,
        expect_tokens=expected,
        finetune=finetuned,
        evaluate_dense=begun.measured,
        evaluate_pruned=measured["pruned"],
        evaluate_finetuned=measured["finetuned"],
        measure_speed=speed,
        compare_behaviour=behaviour,
    )
    register(config, written, finetuned)
