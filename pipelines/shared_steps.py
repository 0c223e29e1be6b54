"""The steps that a compression and a comparison begin with."""

from __future__ import annotations

from typing import Any, NamedTuple

from adapruner.config import RunConfig, ServingConfig
from steps.describe_hardware import describe_hardware
from steps.estimate_importance import estimate_importance
from steps.evaluate import evaluate
from steps.filter_calibration_pool import filter_calibration_pool
from steps.load_model import load_model
from steps.publishing.results import REPORT
from steps.resolve_source import resolve_source
from steps.select_test_texts import select_test_texts
from steps.zenml_support.cache import expire_damaged_results


class SharedOutputs(NamedTuple):
    """Outputs of the first steps, as inputs for the steps that follow."""

    source: Any
    texts: Any
    tasks: Any
    objective_tasks: Any
    hardware: Any
    dense: Any
    pool: Any
    test_texts: Any
    importance_table: Any
    dense_evaluation: Any


def run_shared_steps(
    config: RunConfig,
    serving: ServingConfig,
    has_search: bool,
    gradient_groups: tuple[str, ...],
    result_file: str = REPORT,
) -> SharedOutputs:
    """From the sources to the importance table and the evaluation of the dense model.

    The dense model is checked against `serving`. `has_search` is whether any plan is searched,
    `gradient_groups` are those of the importance table, and `result_file` identifies results of
    this kind of run, see `resolve_source`. Call it inside a pipeline function.
    """
    expire_damaged_results()
    model, seed = config.model, config.seed
    hardware = describe_hardware(model.device_config)
    source, texts, tasks, objective_tasks = resolve_source(config, result_file, has_search)
    dense = load_model(source, serving)
    evaluation = config.evaluation.only("texts", "text_field", "sequence_length", "max_windows")
    pool = filter_calibration_pool(
        texts, dense, config.calibration, config.finetune, evaluation, seed,
        model.device_config if config.calibration.is_self_generated else None,
    )  # fmt: skip
    test_texts = select_test_texts(pool)
    table = estimate_importance(dense, pool, model, config.search.set_size, seed, gradient_groups)
    quality = config.evaluation.quality
    dense_evaluation = evaluate(
        dense, test_texts, tasks, model.device_config, quality, id="evaluate_dense"
    )
    return SharedOutputs(
        source, texts, tasks, objective_tasks, hardware, dense, pool, test_texts, table,
        dense_evaluation,
    )  # fmt: skip
