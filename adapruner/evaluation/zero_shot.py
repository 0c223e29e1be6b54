"""Zero-shot tasks by lm-eval's definitions: metrics, scores and the result of every row.

One metric of a task is its score. The convention is that of LLM-Pruner, which the papers' tables
follow: `acc_norm` (log-likelihood of a choice divided by its characters) for HellaSwag,
ARC-challenge and OpenBookQA; `acc` for BoolQ, PIQA, WinoGrande, ARC-easy and every other task that
has it; else the task's first metric. All metrics of a task are reported.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from adapruner.config import QualityConfig
from adapruner.errors import UserError, first_line
from adapruner.evaluation.results import RowResult, TaskResult
from adapruner.evaluation.tasks import task_manager
from adapruner.progress import announce, console

NORMALISED = frozenset({"hellaswag", "arc_challenge", "openbookqa"})
"""Tasks whose score is acc_norm."""
SEED = 1234
"""lm-eval's own default: the examples of a few-shot task do not depend on a run's seed."""

Scores = npt.NDArray[np.float64]


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
    from adapruner.evaluation.shared_context_lm import SharedContextLM

    hide_lm_eval_output()
    lm = SharedContextLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        max_length=quality.max_length,
        device=str(model.device),
    )
    with tempfile.TemporaryDirectory() as scratch:
        manager = task_manager(quality.tasks, quality.tasks_dir, tasks, Path(scratch))
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


def hide_lm_eval_output() -> None:
    """Silences lm-eval's log, and the bars of its libraries when the output is no terminal."""
    import datasets

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if not console.is_terminal:
        datasets.disable_progress_bars()


def score_metric(task: str, metrics: list[str]) -> str:
    """The metric that is the task's score (see the convention at the top of this file)."""
    preferred = "acc_norm" if task in NORMALISED else "acc"
    return preferred if preferred in metrics else metrics[0]


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


def set_examples(task: Any) -> None:
    """No examples in the prompt unless the task asks for some; these are always the same."""
    if task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEED)


def row_scores(log_likelihoods: Sequence[float], choices: Sequence[str], metric: str) -> Scores:
    """The score of each choice in nats, per character for acc_norm."""
    scores = np.array(log_likelihoods, dtype=np.float64)
    if metric == "acc_norm":
        scores /= np.array([float(len(choice)) for choice in choices])
    return scores


def margin_of(scores: Scores, answer: int) -> float:
    """The score of the correct choice minus that of the best other one; 0 where there is none."""
    others = np.delete(scores, answer)
    return float(scores[answer] - others.max()) if others.size else 0.0


def answer_of(task: Any, doc: dict[str, Any], choices: Sequence[str]) -> int:
    """The index of the correct choice."""
    # In lm-eval's tasks with multiple inputs, the prompt's function gives the index of the answer.
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    gold = gold[0] if isinstance(gold, list) else gold
    return choices.index(gold) if isinstance(gold, str) else int(gold)


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
