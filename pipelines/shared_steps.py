"""The steps that a compression and a comparison begin with."""

from __future__ import annotations

from typing import Any, NamedTuple

from adapruner.config import RunConfig
from steps.zenml_support.cache import forget_vanished
from steps.estimate_importance import estimate_importance
from steps.evaluate import evaluate
from steps.filter_calibration_pool import filter_calibration_pool
from steps.load_model import load_model
from steps.resolve_source import resolve_source
from steps.publishing.results import MARK
from steps.select_test_texts import take_test_texts


class Opening(NamedTuple):
    """Outputs of the steps, for the steps that follow."""

    source: Any
    texts: Any
    tasks: Any
    dense: Any
    pool: Any
    test: Any
    table: Any
    measured: Any


def open_with(config: RunConfig, mark: str = MARK) -> Opening:
    """From the sources to the importance table and what the dense model is measured at.

    `mark` tells earlier results of this kind of run, see `resolve_source`. To be called inside a
    pipeline.
    """
    forget_vanished()
    model, seed = config.model, config.seed
    source, texts, tasks = resolve_source(config, mark)
    dense = load_model(source)
    tested = config.evaluation.only("texts", "text_field", "sequence_length", "max_windows")
    pool = filter_calibration_pool(
        texts, dense, config.calibration, config.finetune, tested, seed,
        model.device_config if config.calibration.is_self_generated else None,
    )  # fmt: skip
    test = take_test_texts(pool)
    table = estimate_importance(dense, pool, model, config.search.set_size, seed)
    quality = config.evaluation.quality
    measured = evaluate(dense, test, tasks, model.device_config, quality, id="evaluate_dense")
    return Opening(source, texts, tasks, dense, pool, test, table, measured)
