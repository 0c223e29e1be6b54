"""Quality: metrics of each model, retention of the tasks, agreement with the dense model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from adapruner.report.format import (
    PERPLEXITY,
    lower_is_better,
    metric_note,
    number,
    percent,
)
from adapruner.report.results import (
    MODEL_NAMES,
    MODELS,
    Report,
    distinct_models,
    final_model,
    retention_of,
)
from adapruner.report.rows import (
    Row,
    change_in_points,
    comparison_row,
    difference,
    relative_change,
)
from adapruner.report.sections.base import Inputs, Section
from adapruner.report.svg import Interval, interval_chart

EVALUATIONS = {
    "dense": "evaluate_dense",
    "pruned": "evaluate_pruned",
    "finetuned": "evaluate_finetuned",
}
"""Model of the report -> the stage that evaluates it."""


def view(report: Report) -> dict[str, Any]:
    """The table of metrics, the table and the chart of the tasks, and the tasks that failed."""
    return {
        "rows": rows(report),
        "models": distinct_models(report),
        "tasks": tasks(report),
        "retention_chart": retention_chart(report),
        "failed_tasks": report["failed_tasks"],
        "has_texts": bool((report.get("behaviour") or {}).get("texts")),
    }


def rows(report: Report) -> list[Row]:
    """Perplexities first, then the other metrics, the mean retention and the agreement."""
    metrics = [report["metrics"][m] or {} for m in distinct_models(report)]
    names = list(dict.fromkeys(name for values in metrics for name in values))
    names.sort(key=lambda name: PERPLEXITY.match(name) is None)
    rows_of_metrics = [_metric_row(n, [values.get(n) for values in metrics]) for n in names]
    return [*rows_of_metrics, *_retention_rows(report), *_behaviour_rows(report)]


def tasks(report: Report) -> list[dict[str, Any]]:
    """A row per task: the score of each model, the final one's retention, and changed rows."""
    final, pruned = final_model(report), retention_of(report, "pruned")["tasks"]
    result = []
    for task, kept in retention_of(report, final)["tasks"].items():
        tuned = kept["model"] if final == "finetuned" else None
        scores = [kept["dense"], pruned.get(task, {}).get("model"), tuned]
        result.append({"task": task, "scores": scores, **kept})
    return result


def retention_chart(report: Report) -> Markup | None:
    """The share of the dense model's score that each task keeps, with its interval."""
    intervals: dict[str, dict[str, Interval]] = {}
    for model in MODELS[1:]:
        retention = retention_of(report, model)
        for name, kept in {**retention["tasks"], "mean": retention["mean"]}.items():
            if kept and None not in (kept["retention"], kept["low"], kept["high"]):
                share, low, high = kept["retention"], kept["low"], kept["high"]
                tip = f"{MODEL_NAMES[model]} keeps {percent(share)} "
                tip += f"({percent(low)} to {percent(high)})"
                intervals.setdefault(name, {})[model] = Interval(share, low, high, tip)
    colours = {"pruned": "warm", "finetuned": "accent"}
    return interval_chart("retention", "Retention of each task", intervals, colours)


def _metric_row(name: str, values: Sequence[float | None]) -> Row:
    less_is_good = lower_is_better(name)
    is_share = not less_is_good and all(0 <= v <= 1 for v in values if v is not None)
    change = change_in_points if is_share else relative_change
    note = metric_note(name)
    return comparison_row(name, note, values, number, less_is_good=less_is_good, change=change)


def _retention_rows(report: Report) -> list[Row]:
    retentions = [retention_of(report, model) for model in distinct_models(report)[1:]]
    means = [retention["mean"] for retention in retentions]
    if not any(means):
        return []
    values = [1.0, *(mean and mean["retention"] for mean in means)]
    count = len(next(retention["tasks"] for retention in retentions if retention["tasks"]))
    note = f"mean over {count} tasks of the share of the dense model's score"
    return [
        comparison_row(
            "retention", note, values, percent, less_is_good=False, change=change_in_points
        )
    ]


def _behaviour_rows(report: Report) -> list[Row]:
    texts = (report.get("behaviour") or {}).get("texts") or {}
    return [row for name, text in texts.items() for row in _text_rows(report, name, text)]


def _text_rows(report: Report, name: str, text: Report) -> list[Row]:
    models = [text.get(model) or {} for model in distinct_models(report)[1:]]
    where = f"on {text['positions']:,} positions of {name}"
    agreement = [1.0, *(values.get("agreement") for values in models)]
    divergence = [0.0, *(values.get("kl_divergence") for values in models)]
    return [
        comparison_row(
            "same next token",
            f"share of positions with the dense model's most likely token, {where}",
            agreement,
            percent,
            less_is_good=False,
            change=change_in_points,
        ),
        comparison_row(
            "KL divergence",
            f"of the next token from the dense model's, nats, {where}",
            divergence,
            number,
            change=difference,
        ),
    ]


def _metrics(inputs: Inputs) -> dict[str, Any]:
    """Model -> metric -> value; null for a model that was not evaluated."""
    from adapruner.evaluation.results import Evaluation

    evaluations = {m: inputs.read(stage, Evaluation) for m, stage in EVALUATIONS.items()}
    return {
        model: evaluation.metrics if evaluation else None
        for model, evaluation in evaluations.items()
    }


def _retention(inputs: Inputs) -> dict[str, Any]:
    """Model -> its retention; null for a model that was not evaluated."""
    from adapruner.evaluation.retention import measure_retention

    directories = {model: inputs.stages.get(stage) for model, stage in EVALUATIONS.items()}
    dense = directories.pop("dense")
    return {
        model: measure_retention(dense, directory, inputs.config.seed)
        if dense and directory
        else None
        for model, directory in directories.items()
    }


def _failed_tasks(inputs: Inputs) -> dict[str, str]:
    """Task -> the reason why it has no result, of the first model for which it failed."""
    from adapruner.evaluation.results import Evaluation

    failed: dict[str, str] = {}
    for stage in EVALUATIONS.values():
        evaluation = inputs.read(stage, Evaluation)
        if evaluation:
            failed = evaluation.failed | failed
    return failed


def _behaviour(inputs: Inputs) -> dict[str, Any] | None:
    from adapruner.evaluation.results import Behaviour

    return inputs.content("compare_behaviour", Behaviour)


SECTION = Section(
    "quality",
    "Quality",
    view,
    "quality.html.j2",
    {
        "metrics": _metrics,
        "retention": _retention,
        "failed_tasks": _failed_tasks,
        "behaviour": _behaviour,
    },
    rows,
)
