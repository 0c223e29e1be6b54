"""Quality: rows of metrics, tasks with their retention, failed tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.evaluation.results import Evaluation
from adapruner.recovery.results import RecoveryResult
from adapruner.report.sections.quality import retention_chart, rows, tasks, view
from tests.adapruner.report.reports import RIGHT_ROWS, build, minimal_report, settings


def test_perplexities_come_before_other_metrics(report: dict[str, Any]) -> None:
    names = [row.name for row in rows(report)]
    assert names.index("news_ppl_seq128") < names.index("piqa_acc") < names.index("retention")


def test_shares_change_in_points_and_perplexities_in_per_cent(report: dict[str, Any]) -> None:
    changes = {row.name: (row.change, row.good) for row in rows(report)}
    assert changes["news_ppl_seq128"] == ("+50.0 %", False)
    assert changes["piqa_acc"] == ("-5.0 points", False)
    assert changes["same next token"] == ("-30.0 points", False)
    assert changes["KL divergence"] == ("+0.400", False)


def test_without_fine_tuning_there_are_two_models(report: dict[str, Any]) -> None:
    pruned = {**report, "recovery": {"method": "none", "curve": []}}
    assert view(pruned)["models"] == ("dense", "pruned")
    assert all(row.cells[2] == "-" for row in rows(pruned))
    perplexity = next(row for row in rows(pruned) if row.name == "news_ppl_seq128")
    assert perplexity.change == "+177.3 %"


def test_weight_bytes_without_fine_tuning_are_of_two_models(stages: dict[str, Path]) -> None:
    RecoveryResult(method="none").write(stages["finetune"])
    report = build(stages, settings(method="none"))
    assert report["weight_bytes"]["finetuned"] is None


def test_tasks_have_scores_retention_and_changed_rows(report: dict[str, Any]) -> None:
    by_name = {task["task"]: task for task in tasks(report)}
    piqa, right = by_name["piqa"], RIGHT_ROWS["piqa"]
    assert piqa["scores"] == [0.65, 0.5, 0.6]
    assert piqa["retention"] == 0.6 / 0.65
    assert piqa["broken"] == sorted(set(right["dense"]) - set(right["finetuned"]))
    assert piqa["fixed"] == sorted(set(right["finetuned"]) - set(right["dense"]))


def test_retention_chart_has_a_mark_per_task_and_model(report: dict[str, Any]) -> None:
    chart = retention_chart(report)
    assert chart is not None
    for name in ("piqa", "boolq", "mean"):
        for model in ("pruned", "fine-tuned"):
            assert f"{name}: {model} keeps" in chart


def test_failed_tasks_are_listed_with_the_reason(report: dict[str, Any]) -> None:
    assert view(report)["failed_tasks"] == {"winogrande": "no rows"}
    assert "winogrande" not in {task["task"] for task in tasks(report)}


def test_run_without_texts_and_tasks_has_no_rows(stages: dict[str, Path]) -> None:
    for stage in ("evaluate_dense", "evaluate_pruned", "evaluate_finetuned"):
        evaluation = Evaluation.read(stages[stage])
        evaluation.model_copy(update={"metrics": {}}).write(stages[stage])
    del stages["compare_behaviour"]
    report = build(stages)
    assert rows(report) == [] and tasks(report) == []


def test_minimal_report_has_no_rows(tmp_path: Path) -> None:
    values = view(minimal_report(tmp_path))
    assert values["rows"] == [] and values["retention_chart"] is None
