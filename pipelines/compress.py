"""From a checkpoint to a smaller one, registered: the main job."""

from __future__ import annotations

from zenml import pipeline

from adapruner.config import RunConfig
from steps.cache import forget_vanished
from steps.compare_behaviour import compare_behaviour
from steps.estimate_importance import estimate_importance
from steps.evaluate import evaluate
from steps.expect_tokens import expect_tokens
from steps.filter_calibration_pool import filter_calibration_pool
from steps.finetune import finetune
from steps.load_model import load_model
from steps.measure_speed import measure_speed
from steps.prune import prune
from steps.register import register
from steps.report import report
from steps.resolve_source import resolve_source
from steps.search import search
from steps.take_test_texts import take_test_texts


@pipeline
def compress(config: RunConfig) -> None:
    """Find out what the model can do without, take it out, heal, measure, register.

    Each step gets the sections of the configuration that it depends on, so that a changed setting
    leaves the steps before it cached.
    """
    forget_vanished()
    model, seed = config.model, config.seed

    source, texts, tasks = resolve_source(config)
    dense = load_model(source)
    tested = config.evaluation.only("texts", "text_field", "sequence_length", "max_windows")
    pool = filter_calibration_pool(
        texts, dense, config.calibration, config.finetune, tested, seed,
        model.on if config.calibration.writes_its_own else None,
    )  # fmt: skip
    test = take_test_texts(pool)

    table = estimate_importance(dense, pool, model, config.search.set_size, seed)
    plan = search(
        dense, pool, table, model, config.search, config.pruning, config.reconstruction, seed
    )
    pruned = prune(dense, plan, pool, model, config.reconstruction)
    expected = expect_tokens(dense, pool, model, config.finetune.expectation)
    finetuned = finetune(pruned, expected, pool, model, config.finetune, seed)

    measured = {
        name: evaluate(
            checkpoint, test, tasks, model.on, config.evaluation.quality, id=f"evaluate_{name}"
        )
        for name, checkpoint in (("dense", dense), ("pruned", pruned), ("finetuned", finetuned))
    }
    timed = config.evaluation.only(
        "speed", "batch_sizes", "prompt_tokens", "new_tokens", "repeats", "peak_memory"
    )
    speed = measure_speed(dense, pruned, model, timed)
    spoken = config.evaluation.only(
        "prompts", "behaviour_windows", "sequence_length", "max_windows"
    )
    behaviour = compare_behaviour(dense, pruned, finetuned, test, model, spoken)

    written = report(
        config,
        resolve_source=source,
        texts=texts,
        load_model=dense,
        filter_calibration_pool=pool,
        estimate_importance=table,
        search=plan,
        prune=pruned,
        expect_tokens=expected,
        finetune=finetuned,
        evaluate_dense=measured["dense"],
        evaluate_pruned=measured["pruned"],
        evaluate_finetuned=measured["finetuned"],
        measure_speed=speed,
        compare_behaviour=behaviour,
    )
    register(config, written, finetuned)
