"""Zero-shot tasks through lm-eval: names of metrics, scores and the result of every row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adapruner.config import EvaluationConfig
from adapruner.evaluation.results import TaskResult
from adapruner.evaluation.tasks.selection import batch_size_of, resolve_tasks
from adapruner.evaluation.tasks.zero_shot import Outcome, flat_metrics, zero_shot
from adapruner.models.storage import checkpoint as ckpt
from tests.adapruner.conftest import Workplace
from tests.adapruner.evaluation.tasks.task_files import ROWS, write_task_files


def run(workplace: Workplace, folder: Path, *tasks: str, limit: int | None = None) -> Outcome:
    """The outcome of tasks that are defined in `folder`."""
    settings = EvaluationConfig(tasks=tasks, tasks_dir=str(folder), limit=limit)
    out = folder.with_name("resolved")
    out.mkdir()
    resolve_tasks(settings, out)
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    return zero_shot(model, tokenizer, settings.quality, out, batch_size_of(out))


def test_a_metric_is_named_by_its_filter_unless_that_is_none() -> None:
    scores = {
        "alias": "gsm8k", "exact_match,strict-match": 0.25, "exact_match,flexible-extract": 0.5,
        "exact_match_stderr,strict-match": 0.1, "acc_norm,none": 0.75, "sample_len": 8,
    }  # fmt: skip
    assert flat_metrics({"gsm8k": scores}) == {
        "gsm8k_exact_match_strict-match": 0.25,
        "gsm8k_exact_match_flexible-extract": 0.5,
        "gsm8k_acc_norm": 0.75,
    }


def test_without_tasks_there_are_no_results(tmp_path: Path) -> None:
    assert zero_shot(None, None, EvaluationConfig().quality, tmp_path, 1) == Outcome()


def test_row_results_are_those_of_the_models_log_likelihoods(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run(workplace, write_task_files(tmp_path / "tasks"), "made")
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    expected: list[dict[str, Any]] = []
    for i, row in enumerate(ROWS):
        ids = [int(word[1:]) for word in row["question"].split()]
        last = model(torch.tensor([ids])).logits[0, -1]
        scores = [float(last[int(choice[1:])]) for choice in row["choices"]]
        choice, answer = scores.index(max(scores)), row["label"]
        margin = pytest.approx(scores[answer] - scores[1 - answer], abs=1e-4)
        expected.append(
            {"id": i, "right": choice == answer, "choice": choice, "answer": answer,
             "margin": margin}
        )  # fmt: skip
    assert outcome.rows == {"made": expected}
    accuracy = sum(row["right"] for row in expected) / len(expected)
    assert outcome.metrics == {"made_acc": pytest.approx(accuracy)}
    assert outcome.tasks["made"].score == outcome.metrics["made_acc"]


def test_a_filtered_metric_is_reported_beside_the_score(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run(workplace, write_task_files(tmp_path / "tasks"), "filtered", limit=4)
    assert set(outcome.metrics) == {"filtered_acc", "filtered_acc_strict-match"}
    assert outcome.tasks["filtered"].rows == len(outcome.rows["filtered"]) == 4


def test_a_task_that_fails_does_not_stop_the_others(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run(workplace, write_task_files(tmp_path / "tasks"), "absent", "made")
    failed = outcome.tasks["absent"]
    assert (failed.metric, failed.score, failed.rows) == (None, None, 0)
    assert "away.jsonl" in str(failed.error)
    assert outcome.tasks["made"] == TaskResult(
        metric="acc", score=outcome.metrics["made_acc"], rows=len(ROWS), error=None
    )
    assert set(outcome.rows) == {"made"}


def test_a_task_without_rows_fails(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_task_files(tmp_path / "tasks")
    (folder / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    definition = (folder / "made.yaml").read_text()
    (folder / "made.yaml").write_text(definition + "process_docs: !function empty.empty\n")
    (folder / "empty.py").write_text("def empty(docs):\n    return docs.select([])\n")
    failed = run(workplace, folder, "made").tasks["made"]
    assert failed.error and failed.score is None
