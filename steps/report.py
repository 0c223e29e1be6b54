"""The report of the run, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from adapruner.config import RunConfig
from steps.zenml_support.cache import uncached_step
from steps.zenml_support.workspace import seconds_of, stage


@uncached_step
def report(
    config: RunConfig,
    resolve_source: Path,
    texts: Path,
    load_model: Path,
    filter_calibration_pool: Path,
    estimate_importance: Path,
    search: Path,
    prune: Path,
    expect_tokens: Path,
    finetune: Path,
    evaluate_dense: Path,
    evaluate_pruned: Path,
    evaluate_finetuned: Path,
    measure_speed: Path,
    compare_behaviour: Path,
) -> Annotated[Path, "report"]:
    """`report.json`, `report.html` and `plan.json`. Inputs are named as the stages are."""
    stages = {name: path for name, path in locals().items() if name not in ("config", "texts")}
    from adapruner.report.build import build_report, write_report
    from adapruner.report.sections import Inputs
    from steps.publishing.provenance import provenance, published

    timings = {name: seconds_of(path) for name, path in stages.items()}
    with stage("report") as out:
        shown = published(config)
        facts = provenance(shown, {**stages, "texts": texts})
        content = build_report(Inputs(shown, stages, timings, facts))
        write_report(content, stages, out)
    return out
