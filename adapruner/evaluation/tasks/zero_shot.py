"""Zero-shot tasks by lm-eval's definitions: metrics, scores and the result of every row.

All metrics of a task are reported; one of them is its score, see `scoring`.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from adapruner.config import QualityConfig
from adapruner.errors import UserError, first_line
from adapruner.evaluation.results import RowResult, TaskResult
from adapruner.evaluation.tasks.scoring import (
    SEED,
    answer_of,
    margin_of,
    row_scores,
    score_metric,
    set_examples,
)
from adapruner.evaluation.tasks.selection import task_manager
from adapruner.progress import announce


@dataclass
class Outcome:
    """The results of several tasks.

    `metrics`: `<task>_<metric>[_<filter>]` -> value. `rows`: task -> row results, for tasks whose
    score is a share of right rows.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    rows: dict[str, list[RowResult]] = field(default_factory=dict)


def zero_shot(
    model: Any, tokenizer: Any, quality: QualityConfig, tasks: Path, batch_size: int
) -> Outcome:
    """Runs every task of `quality`, on local rows where the directory `tasks` has them.

    A task that fails is recorded with its error; the other tasks still run.
    """
    outcome = Outcome()
    if not quality.tasks:
        return outcome
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from adapruner.evaluation.tasks.shared_context_lm import SharedContextLM

    with tempfile.TemporaryDirectory() as scratch:
        manager = task_manager(quality.tasks, quality.tasks_dir, tasks, Path(scratch))
        lm = SharedContextLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=quality.max_length,
            device=str(model.device),
        )
        for name in quality.tasks:
            announce(f"zero-shot: {name}, {quality.limit or 'all'} rows")
            try:
                _run(name, lm, manager, quality.limit, outcome)
            except Exception as error:  # a task's failure must not lose the others' results
                reason = f"{type(error).__name__}: {first_line(error)}"
                reason = str(error) if isinstance(error, UserError) else reason
                announce(f"task {name} failed: {reason}")
                outcome.tasks[name] = TaskResult(metric=None, score=None, rows=0, error=reason)
    return outcome


def flat_metrics(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Metrics by `<task>_<metric>[_<filter>]`, from lm-eval's by task and `metric,filter`.

    The filter "none" is left out of the name; standard errors are dropped.
    """
    return {
        f"{task}_{key.removesuffix(',none').replace(',', '_')}": float(value)
        for task, metrics in results.items()
        for key, value in metrics.items()
        if isinstance(value, float) and "stderr" not in key
    }


def _run(name: str, lm: Any, manager: Any, limit: int | None, outcome: Outcome) -> None:
    """Runs one task, or a group of them, and adds the results to `outcome`."""
    from lm_eval.evaluator import evaluate

    loaded = manager.load([name])
    for task in loaded["tasks"].values():
        if not len(task.eval_docs):
            raise UserError(f"the task {task.task_name} has no rows")
        set_examples(task)
    torch.manual_seed(SEED)
    results = evaluate(lm=lm, task_dict=loaded, limit=limit, bootstrap_iters=0, log_samples=True)
    outcome.metrics |= flat_metrics(results["results"])
    for leaf, samples in results["samples"].items():
        name_of_filter = samples[0]["filter"]
        used = [sample for sample in samples if sample["filter"] == name_of_filter]
        metric = score_metric(leaf, used[0]["metrics"])
        score = float(results["results"][leaf][f"{metric},{name_of_filter}"])
        outcome.tasks[leaf] = TaskResult(metric=metric, score=score, rows=len(used), error=None)
        if all(sample[metric] in (0, 1) for sample in used):
            task = loaded["tasks"][leaf]
            outcome.rows[leaf] = [_row(task, sample, metric) for sample in used]


def _row(task: Any, sample: dict[str, Any], metric: str) -> RowResult:
    """The result of one of lm-eval's logged samples."""
    row = RowResult(
        id=sample["doc_id"], right=bool(sample[metric]), choice=-1, answer=-1, margin=0.0
    )
    if task.OUTPUT_TYPE != "multiple_choice":
        return row
    choices = task.doc_to_choice(sample["doc"])
    found = [answer[0] for answer in sample["filtered_resps"][: len(choices)]]
    scores = row_scores(found, choices, metric)
    answer = answer_of(task, sample["doc"], choices)
    margin = margin_of(scores, answer)
    return {**row, "choice": int(scores.argmax()), "answer": answer, "margin": margin}
