"""Accuracy on zero-shot tasks, by lm-eval's definitions: scores, and what became of every row.

One metric of a task is its score. The convention is that of LLM-Pruner, which the papers' tables
follow: `acc_norm` (the choice's log-likelihood divided by its characters) for HellaSwag,
ARC-challenge and OpenBookQA, `acc` for BoolQ, PIQA, WinoGrande, ARC-easy and every other task that
has it; else the task's first metric. All of a task's metrics are reported.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapruner.models.checkpoint import one_line
from adapruner.config import QualityConfig
from adapruner.errors import UserError
from adapruner.progress import announce
from adapruner.evaluation.tasks import task_manager

NORMALISED = frozenset({"hellaswag", "arc_challenge", "openbookqa"})
"""Tasks whose score is acc_norm."""
SEED = 1234
"""lm-eval's own: which examples a few-shot task shows does not depend on a run's seed."""


@dataclass
class Outcome:
    """What the tasks gave.

    `metrics`: `<task>_<metric>[_<filter>]` -> number. `tasks`: task -> metric, score, rows and
    error; of a task that failed, metric and score are None. `rows`: task -> one entry a row, for
    tasks whose score is a share of right rows.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def zero_shot(
    model: Any, tokenizer: Any, quality: QualityConfig, tasks: Path, batch_size: int
) -> Outcome:
    """Runs every task of `quality`, with the rows that `tasks.resolve` left in the folder `tasks`.

    A task that fails is recorded with its reason and does not keep the others from being run.
    """
    outcome = Outcome()
    if not quality.tasks:
        return outcome
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from adapruner.evaluation.shared_context_lm import SharedContextLM

    quieten()
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
            except Exception as error:  # whatever is wrong with one task, the others count
                reason = f"{type(error).__name__}: {first_line(error)}"
                reason = str(error) if isinstance(error, UserError) else reason
                announce(f"task {name} failed: {reason}")
                failed = {"metric": None, "score": None, "rows": 0, "error": reason}
                outcome.tasks[name] = failed
    return outcome


def quieten() -> None:
    """Keeps the bars of lm-eval's libraries off where no terminal shows them."""
    import logging

    import datasets

    from adapruner.progress import console

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if not console.is_terminal:
        datasets.disable_progress_bars()


def _run(name: str, lm: Any, manager: Any, limit: int | None, outcome: Outcome) -> None:
    from lm_eval.evaluator import evaluate

    loaded = manager.load([name])
    for task in loaded["tasks"].values():
        if not len(task.eval_docs):
            raise UserError(f"the task {task.task_name} has no rows")
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=SEED)
    torch.manual_seed(SEED)
    results = evaluate(lm=lm, task_dict=loaded, limit=limit, bootstrap_iters=0, log_samples=True)
    outcome.metrics |= named_scores(results["results"])
    for leaf, samples in results["samples"].items():
        used = [s for s in samples if s["filter"] == samples[0]["filter"]]
        metric = score_metric(leaf, used[0]["metrics"])
        score = results["results"][leaf][f"{metric},{used[0]['filter']}"]
        told = {"metric": metric, "score": float(score), "rows": len(used), "error": None}
        outcome.tasks[leaf] = told
        if all(s[metric] in (0, 1) for s in used):
            task = loaded["tasks"][leaf]
            outcome.rows[leaf] = [_row(task, sample, metric) for sample in used]


def score_metric(task: str, metrics: list[str]) -> str:
    """Which of a task's metrics is its score (see the convention at the top of this file)."""
    wanted = "acc_norm" if task in NORMALISED else "acc"
    return wanted if wanted in metrics else metrics[0]


def named_scores(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Scores by `<task>_<metric>[_<filter>]` of lm-eval's, which are by task and `metric,filter`.

    The filter "none" is left out; standard errors are too.
    """
    return {
        f"{task}_{key.removesuffix(',none').replace(',', '_')}": float(value)
        for task, scores in results.items()
        for key, value in scores.items()
        if isinstance(value, float) and "stderr" not in key
    }


def _row(task: Any, sample: dict[str, Any], metric: str) -> dict[str, Any]:
    """A row's place, whether it is right, the choice made, the right one, and by how much.

    `margin` is the right choice's log-likelihood in nats (for acc_norm: a character) less that of
    the best other. A row without choices has choice and answer -1 and margin 0.
    """
    row = {"id": sample["doc_id"], "right": bool(sample[metric])}
    if task.OUTPUT_TYPE != "multiple_choice":
        return {**row, "choice": -1, "answer": -1, "margin": 0.0}
    doc = sample["doc"]
    choices = task.doc_to_choice(doc)
    scores = np.array([answer[0] for answer in sample["filtered_resps"][: len(choices)]])
    if metric == "acc_norm":
        scores = scores / np.array([float(len(choice)) for choice in choices])
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    gold = gold[0] if isinstance(gold, list) else gold
    answer = choices.index(gold) if isinstance(gold, str) else int(gold)
    others = np.delete(scores, answer)
    margin = float(scores[answer] - others.max()) if others.size else 0.0
    return {**row, "choice": int(scores.argmax()), "answer": answer, "margin": margin}
