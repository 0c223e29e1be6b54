"""The table of a comparison: files, MLflow, the output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from zenml import get_step_context

from adapruner.comparison.cells import ComparisonConfig
from adapruner.config import RunConfig
from steps.zenml_support.cache import uncached_step
from steps.zenml_support.workspace import seconds_of, stage


@uncached_step
def compare_candidates(
    config: RunConfig,
    comparison: ComparisonConfig,
    load_model: Path,
    filter_calibration_pool: Path,
    estimate_importance: Path,
    evaluate_dense: Path,
    expect_tokens: Path,
    candidates: list[Path],
) -> Annotated[Path, "comparison"]:
    """`comparison.json`, `.md`, `.svg` and `.png`; `candidates` are in the order of the cells."""
    shared = {name: path for name, path in locals().items() if isinstance(path, Path)}
    from adapruner.comparison import chart as comparison_chart, table as comparison_table
    from steps.mlflow_support import comparison as mlflow_comparison
    from steps.publishing import results
    from steps.publishing.provenance import published

    seconds = {name: seconds_of(path) for name, path in shared.items()}
    dense = json.loads((evaluate_dense / "metrics.json").read_text(encoding="utf-8"))
    shown = published(config)
    with stage("comparison") as out:
        content = comparison_table.build(shown, comparison, dense, candidates, seconds)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (out / results.COMPARISON).write_text(text, encoding="utf-8")
        markdown = comparison_table.markdown(content)
        (out / "comparison.md").write_text(markdown, encoding="utf-8")
        comparison_chart.write(content, out)
        mlflow_comparison.log(get_step_context().pipeline_run.name, content, out)
        results.publish_comparison(config, out)
    return out
