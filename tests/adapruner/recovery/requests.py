"""Recoveries of the workplace's checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapruner.config import FinetuneConfig
from adapruner.data.pool import write_finetune_rows
from adapruner.recovery.finetune import RecoveryRequest, finetune
from adapruner.recovery.results import RecoveryResult
from adapruner.recovery.training.examples import Example
from adapruner.recovery.training.teacher_logits import compute_teacher_logits
from tests.adapruner.conftest import Workplace

SETTINGS = FinetuneConfig(
    loss="data", steps=30, batch_size=4, sequence_length=16, rank=4, learning_rate=1e-2
)

FIRST = 30
"""The first token of domain 0; `w10` to `w29` begin with the special tokens `w1` and `w2`."""


def settings(**changes: Any) -> FinetuneConfig:
    """SETTINGS with changes."""
    return SETTINGS.model_copy(update=changes)


def with_domains(work: Workplace, out: Path, sizes: Sequence[int]) -> Workplace:
    """The workplace with texts of domains that have no token in common, in the new folder `out`.

    `sizes` are the numbers of windows of 16 tokens that the texts of each domain have.
    """
    shutil.copytree(work.pool, out)
    rows = []
    for turn in range(max(sizes)):
        for domain, size in enumerate(sizes):
            if turn < size:  # with the end-of-text token 16 tokens
                words = [f"w{FIRST + 20 * domain + (turn + 3 * i) % 20}" for i in range(15)]
                rows.append({"text": " ".join(words), "domain": str(domain)})
    write_finetune_rows(out, rows)
    return replace(work, pool=out)


def domains_of(example: Example) -> set[int]:
    """The domains of `with_domains` that the tokens of an example belong to."""
    return {(token - FIRST) // 20 for token in example.tokens if token >= FIRST}


def recovered(
    work: Workplace, config: FinetuneConfig, out: Path, seed: int = 0, dense: Path | None = None
) -> RecoveryResult:
    """Fine-tunes the workplace's checkpoint; the folder `out` is made.

    `dense` is the teacher, and what `ast` starts from.
    """
    out.mkdir()
    teacher = out.with_name(f"{out.name}-teacher")
    teacher.mkdir()
    compute_teacher_logits(dense or work.checkpoint, work.pool, work.model, config.teacher, teacher)
    source = dense or work.checkpoint
    request = RecoveryRequest(work.checkpoint, source, teacher, work.pool, work.model, config, seed)
    return finetune(request, out)


def start_and_end(result: RecoveryResult, points: int = 5) -> tuple[float, float]:
    """The mean loss of the first and of the last points of the curve."""
    losses = [point.loss for point in result.curve]
    return sum(losses[:points]) / points, sum(losses[-points:]) / points
