"""The table of a comparison, as files, in MLflow and in the output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from zenml import get_step_context

from adapruner.comparison.cells import ComparisonConfig
from adapruner.config import RunConfig
from steps.zenml_support.cache import uncached_step
from steps.zenml_support.materializer import WithoutWeights
from steps.zenml_support.workspace import Timing, runs_in_containers, stage


@uncached_step
def compare_candidates(
    config: RunConfig,
    comparison: ComparisonConfig,
    load_model: WithoutWeights,
    filter_calibration_pool: WithoutWeights,
    estimate_importance: WithoutWeights,
    compute_gram_matrices: WithoutWeights,
    measure_latency: WithoutWeights,
    evaluate_dense: WithoutWeights,
    compute_teacher_logits: WithoutWeights,
    candidates: list[Path],
) -> Annotated[Path, "comparison"]:
    """`comparison.json`, `.md`, `.svg` and `.png`; `candidates` are in the order of the cells."""
    from adapruner.comparison import chart, table
    from adapruner.evaluation.results import Evaluation
    from adapruner.files import write_json
    from steps.mlflow_support.comparison import log
    from steps.publishing.provenance import publishable
    from steps.publishing.results import COMPARISON, publish_comparison

    shared = {
        "load_model": load_model,
        "filter_calibration_pool": filter_calibration_pool,
        "estimate_importance": estimate_importance,
        "compute_gram_matrices": compute_gram_matrices,
        "measure_latency": measure_latency,
        "evaluate_dense": evaluate_dense,
        "compute_teacher_logits": compute_teacher_logits,
    }
    seconds = {name: Timing.read(directory).seconds for name, directory in shared.items()}
    dense = Evaluation.read(evaluate_dense).metrics
    with stage("comparison") as out:
        content = table.build(publishable(config), comparison, dense, candidates, seconds)
        write_json(out / COMPARISON, content)
        (out / "comparison.md").write_text(table.markdown(content), encoding="utf-8")
        chart.write(content, out)
        log(get_step_context().pipeline_run.name, content, out)
        if not runs_in_containers():
            publish_comparison(config, out)
    return out
