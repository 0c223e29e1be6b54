"""Recoveries of the workplace's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.config import FinetuneConfig
from adapruner.recovery.finetune import RecoveryRequest, RecoveryResult, finetune
from adapruner.recovery.teacher_logits import compute_teacher_logits
from tests.adapruner.conftest import Workplace

SETTINGS = FinetuneConfig(
    loss="data", steps=30, batch_size=4, sequence_length=16, rank=4, learning_rate=1e-2
)


def settings(**changes: Any) -> FinetuneConfig:
    """SETTINGS with changes."""
    return SETTINGS.model_copy(update=changes)


def recovered(
    work: Workplace, config: FinetuneConfig, out: Path, seed: int = 0, dense: Path | None = None
) -> RecoveryResult:
    """Fine-tunes the workplace's checkpoint; the folder `out` is made. `dense` is the teacher."""
    out.mkdir()
    teacher = out.with_name(f"{out.name}-teacher")
    teacher.mkdir()
    compute_teacher_logits(dense or work.checkpoint, work.pool, work.model, config.teacher, teacher)
    request = RecoveryRequest(work.checkpoint, teacher, work.pool, work.model, config, seed)
    return finetune(request, out)


def start_and_end(result: RecoveryResult, points: int = 5) -> tuple[float, float]:
    """The mean loss of the first and of the last points of the curve."""
    losses = [point.loss for point in result.curve]
    return sum(losses[:points]) / points, sum(losses[-points:]) / points
