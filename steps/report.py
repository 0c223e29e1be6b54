"""The report of the run, for people and for programs.

An unchanged run keeps its report, with the versions of packages that computed the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import RunConfig
from steps.zenml_support.cache import cached_step
from steps.zenml_support.materializer import WithoutWeights
from steps.zenml_support.workspace import Timing, stage


@cached_step
def report(
    config: RunConfig,
    resolve_source: WithoutWeights,
    texts: WithoutWeights,
    load_model: WithoutWeights,
    filter_calibration_pool: WithoutWeights,
    estimate_importance: WithoutWeights,
    compute_gram_matrices: WithoutWeights,
    measure_latency: WithoutWeights,
    search: WithoutWeights,
    prune: WithoutWeights,
    compute_teacher_logits: WithoutWeights,
    finetune: WithoutWeights,
    measure_recovery: WithoutWeights,
    evaluate_dense: WithoutWeights,
    evaluate_pruned: WithoutWeights,
    evaluate_finetuned: WithoutWeights,
    measure_efficiency: WithoutWeights,
    compare_behaviour: WithoutWeights,
) -> Annotated[Path, "report"]:
    """`report.json`, `report.html` and `plan.json`. An input has the name of its stage."""
    from adapruner.data.texts.sources import TextSources
    from adapruner.models.storage.sources import CheckpointSource
    from adapruner.report.build import build_report, write_report
    from adapruner.report.sections import Inputs
    from steps.publishing.provenance import provenance, publishable

    stages: dict[str, Path] = {
        "resolve_source": resolve_source,
        "load_model": load_model,
        "filter_calibration_pool": filter_calibration_pool,
        "estimate_importance": estimate_importance,
        "compute_gram_matrices": compute_gram_matrices,
        "measure_latency": measure_latency,
        "search": search,
        "prune": prune,
        "compute_teacher_logits": compute_teacher_logits,
        "finetune": finetune,
        "measure_recovery": measure_recovery,
        "evaluate_dense": evaluate_dense,
        "evaluate_pruned": evaluate_pruned,
        "evaluate_finetuned": evaluate_finetuned,
        "measure_efficiency": measure_efficiency,
        "compare_behaviour": compare_behaviour,
    }
    timings = {name: Timing.read(directory).seconds for name, directory in stages.items()}
    source, text_sources = CheckpointSource.read(resolve_source), TextSources.read(texts)
    with stage("report") as out:
        shown = publishable(config)
        facts = provenance(shown, source, text_sources, stages)
        write_report(build_report(Inputs(shown, stages, timings, facts)), stages, out)
    return out
