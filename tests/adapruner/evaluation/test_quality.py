"""Perplexity by its definition, tasks through lm-eval on local files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from adapruner.models import checkpoint as ckpt
from adapruner.config import EvaluationConfig, QualityConfig
from adapruner.errors import UserError
from adapruner.evaluation.quality import evaluate, text_metrics
from adapruner.evaluation.perplexity import mean_loss, windows_of
from adapruner.evaluation.tasks import batch_size, resolve
from adapruner.evaluation.zero_shot import named_scores, score_metric
from tests.adapruner.conftest import Workplace
from tests.models import small_model, tokens

TASK = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {rows}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""

FILTERS = """
filter_list:
- {name: strict-match, filter: [{function: take_first}]}
- {name: none, filter: [{function: take_first}]}
"""


def measured(workplace: Workplace, settings: EvaluationConfig, folder: Path) -> Path:
    """The stage directory of an evaluation by `settings`."""
    tasks, out = folder / "resolved", folder / "out"
    tasks.mkdir()
    out.mkdir()
    resolve(settings, tasks)
    evaluate(
        workplace.checkpoint,
        workplace.pool,
        tasks,
        workplace.model.device_config,
        settings.quality,
        batch_size(tasks),
        out,
    )
    return out


def test_perplexity_is_the_exponential_of_the_mean_loss_a_predicted_token() -> None:
    model, windows = small_model("llama"), tokens(5, 9)
    losses = []
    for row in windows.long():
        logits = model(row[None]).logits[0].double().log_softmax(-1)
        losses += [-float(logits[i, row[i + 1]]) for i in range(8)]
    assert mean_loss(model, windows) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_windows_do_not_overlap_and_the_remainder_is_dropped() -> None:
    assert windows_of(list(range(11)), 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert windows_of(list(range(11)), 3, most=2).shape == (2, 3)
    assert windows_of([1, 2], 3).shape == (0, 3)


def test_metrics_carry_their_protocol(workplace: Workplace, tmp_path: Path) -> None:
    settings = EvaluationConfig(sequence_length=16, max_windows=4)
    out = measured(workplace, settings, tmp_path)
    metrics = json.loads((out / "metrics.json").read_text())
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads((out / "tasks.json").read_text()) == {}
    assert list(metrics) == ["made_ppl_seq16"]
    assert 1 < metrics["made_ppl_seq16"] < math.inf
    assert summary["windows"] == {"made": 4}
    assert summary["params"] == ckpt.inspect(workplace.checkpoint).total_params


def test_a_test_text_shorter_than_a_window_is_refused(workplace: Workplace) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    with pytest.raises(UserError, match="'short' has 2 tokens, a window needs 128"):
        text_metrics(model, tokenizer, {"short": "w5 w6"}, QualityConfig())


def test_a_metric_is_named_by_its_filter_unless_that_is_none() -> None:
    scores = {
        "alias": "gsm8k", "exact_match,strict-match": 0.25, "exact_match,flexible-extract": 0.5,
        "exact_match_stderr,strict-match": 0.1, "acc_norm,none": 0.75, "sample_len": 8,
    }  # fmt: skip
    assert named_scores({"gsm8k": scores}) == {
        "gsm8k_exact_match_strict-match": 0.25,
        "gsm8k_exact_match_flexible-extract": 0.5,
        "gsm8k_acc_norm": 0.75,
    }


def test_the_papers_convention_says_which_metric_is_the_score() -> None:
    both = ["acc", "acc_norm"]
    normalised = {"hellaswag", "arc_challenge", "openbookqa"}
    for task in ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", *normalised):
        assert score_metric(task, both) == ("acc_norm" if task in normalised else "acc")
    assert score_metric("gsm8k", ["exact_match"]) == "exact_match"


@pytest.mark.slow
def test_tasks_of_a_folder_one_of_which_fails(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows: list[Any] = [
        {"question": f"w{i + 50} w7", "choices": [f"w{i + 30}", f"w{i + 40}"], "label": i % 2}
        for i in range(6)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "made.yaml").write_text(TASK.format(task="made", rows=folder / "rows.jsonl"))
    (folder / "gone.yaml").write_text(TASK.format(task="gone", rows=folder / "away.jsonl"))
    filtered = TASK.format(task="filtered", rows=folder / "rows.jsonl") + FILTERS
    (folder / "filtered.yaml").write_text(filtered)
    tasks = ("gone", "made", "filtered")
    settings = EvaluationConfig(tasks=tasks, tasks_dir=str(folder), sequence_length=16)
    out = measured(workplace, settings, tmp_path)
    metrics = json.loads((out / "metrics.json").read_text())
    named = {"made_acc", "filtered_acc", "filtered_acc_strict-match"}
    assert set(metrics) == {"made_ppl_seq16"} | named

    told = json.loads((out / "tasks.json").read_text())
    assert told["gone"]["score"] is None
    assert "away.jsonl" in told["gone"]["error"]
    assert json.loads((out / "failed.json").read_text()) == {"gone": told["gone"]["error"]}
    assert told["made"] == {
        "metric": "acc", "score": metrics["made_acc"], "rows": 6, "error": None,
    }  # fmt: skip
    assert {path.name for path in (out / "rows").iterdir()} == {"made.json", "filtered.json"}

    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    wanted = []
    for i, row in enumerate(rows):
        ids = [int(w[1:]) for w in row["question"].split()]
        best = model(torch.tensor([ids])).logits[0, -1]
        scores = [float(best[int(choice[1:])]) for choice in row["choices"]]
        choice, answer = scores.index(max(scores)), row["label"]
        margin = pytest.approx(scores[answer] - scores[1 - answer], abs=1e-4)
        wanted.append(
            {"id": i, "right": choice == answer, "choice": choice, "answer": answer,
             "margin": margin}
        )  # fmt: skip
    assert json.loads((out / "rows" / "made.json").read_text()) == wanted
    assert metrics["made_acc"] == pytest.approx(sum(row["right"] for row in wanted) / 6)
