"""What a method trains on, as its request says, and the record of the training."""

from __future__ import annotations

from collections.abc import Sequence

from adapruner.data.pool import Pool
from adapruner.errors import UserError
from adapruner.models.storage.checkpoint import load_tokenizer
from adapruner.recovery.finetune import RecoveryRequest
from adapruner.recovery.results import CurvePoint, RecoveryResult
from adapruner.recovery.training.examples import select_examples
from adapruner.recovery.training.teacher_logits import read_teacher_logits
from adapruner.recovery.training.training import TrainingData

HELD_OUT_WINDOWS = 16
"""Windows of the held-out text that the loss is measured on during training."""


def training_data(request: RecoveryRequest) -> TrainingData:
    """The examples of the fine-tune split, the teacher's logits where they are distilled, and
    held-out windows.

    Raises UserError for a split with fewer examples than a batch.
    """
    settings = request.finetune
    tokenizer = load_tokenizer(request.checkpoint)
    most = settings.steps * settings.batch_size
    length = settings.sequence_length
    selected = select_examples(request.pool, tokenizer, length, most, request.shares)
    if len(selected.examples) < settings.batch_size:
        raise UserError(
            f"the fine-tune split has {len(selected.examples)} usable examples, a batch needs "
            f"{settings.batch_size}; use more texts or lower finetune.batch_size"
        )
    return TrainingData(
        examples=selected.examples,
        teacher=None if settings.loss == "data" else read_teacher_logits(request.teacher),
        held_out=Pool.read(request.pool).held_out[:HELD_OUT_WINDOWS],
        teacher_share=0.5 if settings.loss == "both" else 1.0,
        by_domain=selected.by_domain,
    )


def result_of(
    request: RecoveryRequest, data: TrainingData, curve: Sequence[CurvePoint]
) -> RecoveryResult:
    """The record of a training."""
    return RecoveryResult(
        method=request.finetune.method,
        loss=request.finetune.loss,
        examples=len(data.examples),
        examples_by_domain=data.by_domain,
        curve=tuple(curve),
    )
