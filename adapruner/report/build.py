"""The report of a run: one dictionary for programs, one page for people, one table for a terminal.

Everything is read from the stages' directories; nothing is computed that a stage has not measured,
but for differences, ratios and sums of it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from adapruner.report import gate
from adapruner.models.checkpoint import size_on_disk
from adapruner.config import RunConfig
from adapruner.evaluation.quality import FAILED
from adapruner.pruning.plan import LayerPlan, PruningPlan, kept_widths
from adapruner.report.files import PAGE_FILE, REPORT_FILE, write_page
from adapruner.report.rows import rows
from adapruner.evaluation.retention import compare
from adapruner.search.parameter_importance import parameter_importance
from adapruner.models.structures import LayerWidths

EVALUATIONS = {
    "dense": "evaluate_dense",
    "pruned": "evaluate_pruned",
    "finetuned": "evaluate_finetuned",
}
"""Model of the report -> stage that measured it."""


def build_report(
    config: RunConfig,
    stages: Mapping[str, Path],
    timings_s: Mapping[str, float],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """report.json: what went in, what came out, what it cost.

    `stages` names the directory of each stage; `timings_s` gives seconds of each;
    `provenance["created"]` is the UTC time in ISO form, so that the result depends on the arguments
    and files alone. Stages that were switched off (speed, fine-tuning) leave null. Parameters are
    counts (a tied embedding once), sizes are bytes of the weight files, ratios are shares of 1.
    A number that is not finite becomes null, as JSON has no spelling for it.
    """
    plan = _read(stages, "search", "plan.json", {})
    report = {
        "name": config.name,
        "created": provenance.get("created"),
        "params": _params(config, plan, stages),
        "metrics": {
            model: _read(stages, stage, "metrics.json", None)
            for model, stage in EVALUATIONS.items()
        },
        "retention": _retention(stages, config.seed),
        "failed_tasks": _failed_tasks(stages),
        "speed": _read(stages, "measure_speed", "speed.json", None),
        "cost": _read(stages, "measure_speed", "cost.json", None),
        "behaviour": _read(stages, "compare_behaviour", "behaviour.json", None),
        "pool": _read(stages, "filter_calibration_pool", "summary.json", {}),
        "search": _search(stages),
        "plan": _plan(plan),
        "finetune": {
            "method": config.finetune.method,
            "curve": _read(stages, "finetune", "curve.json", []),
        },
        "timings_s": dict(timings_s),
        "provenance": {
            "seed": config.seed,
            "config": config.model_dump(mode="json"),
            **provenance,
        },
    }
    result: dict[str, Any] = _finite(report)
    result["gate"] = gate.judge(config.evaluation.gate, result)
    return result


def write(report: Mapping[str, Any], stages: Mapping[str, Path], out: Path) -> None:
    """Write report.json, report.html and plan.json into the existing directory `out`."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (out / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    write_page(report, out / PAGE_FILE)
    shutil.copyfile(stages["search"] / "plan.json", out / "plan.json")


def table(report: Mapping[str, Any]) -> Table:
    """Dense, pruned and fine-tuned side by side."""
    result = Table(title=f"{report['name']}: what was lost and what was gained", title_style="bold")
    result.add_column("", overflow="fold")
    for heading in ("dense", "pruned", "fine-tuned", "change"):
        result.add_column(heading, justify="right")
    for row in rows(report):
        result.add_row(row.name, *row.cells, row.change)
    return result


def _read(stages: Mapping[str, Path], stage: str, name: str, default: Any) -> Any:
    """A stage's JSON file, or `default` where the stage did not run or did not write it."""
    path = stages.get(stage)
    if path is None or not (path / name).is_file():
        return default
    return json.loads((path / name).read_text(encoding="utf-8"))


def _params(
    config: RunConfig, plan: Mapping[str, Any], stages: Mapping[str, Path]
) -> dict[str, Any]:
    counts, ratio = plan.get("params", {}), plan.get("ratio", {})
    dense, pruned = counts.get("dense"), counts.get("pruned")
    counting = ratio.get("of", config.pruning.ratio_of)
    return {
        "dense": dense,
        "pruned": pruned,
        "removed": dense - pruned if dense is not None and pruned is not None else None,
        "ratio_requested": ratio.get("requested", config.pruning.ratio),
        "ratio_of": counting,
        "ratio_achieved": ratio.get(f"achieved_{counting}"),
        "ratio_achieved_all": ratio.get("achieved_all"),
        "ratio_achieved_blocks": ratio.get("achieved_blocks"),
        "bytes_dense": _weight_bytes(stages, "load_model"),
        "bytes_pruned": _weight_bytes(stages, "prune"),
        "bytes_finetuned": None
        if config.finetune.method == "none"
        else _read(stages, "evaluate_finetuned", "summary.json", {}).get("bytes"),
    }


def _retention(stages: Mapping[str, Path], seed: int) -> dict[str, Any]:
    """What each model kept of the dense one's accuracy; None where one was not measured."""
    dense = stages.get(EVALUATIONS["dense"])
    others = {model: stages.get(EVALUATIONS[model]) for model in ("pruned", "finetuned")}
    return {
        model: compare(dense, stage, seed) if dense and stage else None
        for model, stage in others.items()
    }


def _failed_tasks(stages: Mapping[str, Path]) -> dict[str, str]:
    """Task -> why it has no result, of the first model that it failed for."""
    failed: dict[str, str] = {}
    for stage in EVALUATIONS.values():
        failed = _read(stages, stage, FAILED, {}) | failed
    return failed


def _weight_bytes(stages: Mapping[str, Path], stage: str) -> int | None:
    path = stages.get(stage)
    return size_on_disk(path) if path else None


def _search(stages: Mapping[str, Path]) -> dict[str, Any]:
    summary = _read(stages, "search", "summary.json", {})
    trials = _read(stages, "search", "trials.json", [])
    warm = [t for t in trials if t.get("name", "trial") != "trial"]
    return {
        **summary,
        "objective": summary.get("objective", "perplexity"),
        "unit": summary.get("unit", "perplexity on the objective text; lower is better"),
        "best": summary.get("best"),
        "dense_value": summary.get("dense_value"),
        "warm_starts": [{k: t.get(k) for k in ("number", "name", "value")} for t in warm],
        "trials": trials,
        "importance": parameter_importance(trials),
    }


def _plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    if not plan:
        return {"layout": None, "model_type": None, "protected": [], "layers": []}
    decided = PruningPlan.model_validate(plan)
    protected = set(decided.protected)
    parts = zip(decided.dense, decided.layers, strict=True)
    return {
        "layout": decided.layout,
        "model_type": decided.model_type,
        "protected": sorted(protected),
        "layers": [
            _layer(i, LayerWidths(**dense), kept, i in protected)
            for i, (dense, kept) in enumerate(parts)
        ],
    }


def _layer(number: int, dense: LayerWidths, plan: LayerPlan, protected: bool) -> dict[str, Any]:
    kept = kept_widths(dense, plan)
    return {
        "layer": number,
        "mlp_width": kept.mlp_channels,
        "mlp_dense_width": dense.mlp_channels,
        "query_heads": kept.query_heads,
        "query_dense_heads": dense.query_heads,
        "kv_groups": kept.kv_groups,
        "kv_dense_groups": dense.kv_groups,
        "protected": protected,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_finite(item) for item in value]
    return value
