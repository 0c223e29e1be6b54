"""How the rows of lm-eval's tasks are scored.

One metric of a task is its score. The convention is that of LLM-Pruner, which the papers' tables
follow: `acc_norm` (log-likelihood of a choice divided by its characters) for HellaSwag,
ARC-challenge and OpenBookQA; `acc` for BoolQ, PIQA, WinoGrande, ARC-easy and every other task that
has it; else the task's first metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

NORMALISED = frozenset({"hellaswag", "arc_challenge", "openbookqa"})
"""Tasks whose score is acc_norm."""
SEED = 1234
"""lm-eval's own default: the examples of a few-shot task do not depend on a run's seed."""

Scores = npt.NDArray[np.float64]


def score_metric(task: str, metrics: list[str]) -> str:
    """The metric that is the task's score (see the convention at the top of this file)."""
    preferred = "acc_norm" if task in NORMALISED else "acc"
    return preferred if preferred in metrics else metrics[0]


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
