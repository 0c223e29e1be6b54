"""Training of a model on the fine-tune split.

The loss covers all tokens of plain text and only the response of Alpaca rows. It is either the
cross-entropy of the text (`data`), the Kullback-Leibler divergence KL(dense || model) of the
next-token distributions at temperature 1 (`distill`, arXiv 1503.02531), grouped as in
`evaluation.divergence`, or the mean of the two (`both`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from adapruner.config import FinetuneConfig
from adapruner.data.pool import Pool
from adapruner.errors import UserError
from adapruner.evaluation.divergence import TopLogProbs, divergence
from adapruner.evaluation.perplexity import mean_loss
from adapruner.models.checkpoint import load_tokenizer
from adapruner.progress import announce, track
from adapruner.recovery.examples import IGNORE, Batch, Example, batches, pad, select_examples
from adapruner.recovery.finetune import CurvePoint, RecoveryRequest
from adapruner.recovery.teacher_logits import logits_of, read_teacher_logits

HELD_OUT_CHECKS = 8
"""Number of measurements of the held-out loss over the whole training."""
MAX_GRADIENT_NORM = 1.0
HELD_OUT_WINDOWS = 16
"""Windows of the held-out text that the loss is measured on during training."""


@dataclass(frozen=True)
class TrainingData:
    """Examples, the teacher's logits for all of them, and held-out windows, int [M, T].

    Without a `teacher` the loss is the cross-entropy of the text; `teacher_share` is the share of
    the teacher's divergence in it. `by_domain` is the number of examples of each domain.
    """

    examples: list[Example]
    teacher: TopLogProbs | None
    held_out: Tensor
    teacher_share: float = 1.0
    by_domain: tuple[int, ...] = ()


def training_data(request: RecoveryRequest) -> TrainingData:
    """The data of a recovery. Raises UserError for fewer examples than a batch."""
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


def train(
    model: Any,
    data: TrainingData,
    settings: FinetuneConfig,
    seed: int,
    before_step: Callable[[int], None] | None = None,
) -> list[CurvePoint]:
    """Trains the weights of `model` that require gradients, with AdamW; one curve point per step.

    `before_step` is called with the number of each step, from 1 on, before its forward pass.

    Raises UserError, with the step, at the first loss that is not finite.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    schedule = learning_rate_schedule(optimizer, settings.warmup_steps, settings.steps)
    announce(
        f"fine-tuning: {settings.steps} steps of {settings.batch_size} x "
        f"{settings.sequence_length} tokens, {sum(p.numel() for p in weights):,} weights"
    )
    curve = []
    every = max(settings.steps // HELD_OUT_CHECKS, 1)
    order = batches(len(data.examples), settings.batch_size, seed)
    for step in track(range(1, settings.steps + 1), "fine-tuning"):
        model.train()
        if before_step is not None:
            before_step(step)
        loss = _batch_loss(model, data, next(order))
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss of fine-tuning step {step} is {loss.item()}; lower "
                f"finetune.learning_rate ({settings.learning_rate:g}) or use dtype: float32"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        model.eval()
        is_checked = step % every == 0 or step == settings.steps
        held_out = mean_loss(model, data.held_out) if is_checked else None
        curve.append(CurvePoint(step=step, loss=loss.item(), held_out=held_out))
    return curve


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, warmup: int, steps: int
) -> LRScheduler:
    """Linear warm-up over `warmup` steps, then cosine decay to 0 at `steps`.

    The first step has 1 / `warmup` of the optimizer's learning rate; the last step of the warm-up
    and the first step of the decay have all of it.
    """

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2

    return LambdaLR(optimizer, share)


def token_loss(
    logits: Tensor, batch: Batch, teacher: TopLogProbs | None, teacher_share: float = 1.0
) -> Tensor:
    """Mean loss in nats over the tokens of `batch` that are trained on.

    `logits` is [B, T, V]. `teacher` has the teacher's logits at all positions of the examples but
    their last, [P, K]; without one the loss is the cross-entropy, which also has what is left by
    `teacher_share`.
    """
    targets = batch.labels[:, 1:].to(logits.device).flatten()
    is_trained = targets != IGNORE
    predicted = logits[:, :-1].flatten(0, 1)[is_trained]
    share = 0.0 if teacher is None else teacher_share
    loss = predicted.new_zeros((), dtype=torch.float32)
    if share < 1:
        loss = (1 - share) * F.cross_entropy(predicted.float(), targets[is_trained])
    if teacher is None:
        return loss
    is_real = batch.mask[:, 1:].flatten().bool()
    rows = is_trained[is_real].to(teacher.tokens.device)
    expected = TopLogProbs(teacher.tokens[rows], teacher.log_probs[rows])
    return loss + share * divergence(expected, predicted).mean()


def _batch_loss(model: Any, data: TrainingData, indices: list[int]) -> Tensor:
    teacher = None
    if data.teacher is not None:
        teacher = logits_of(data.teacher, data.examples, indices)
    device = model.get_input_embeddings().weight.device
    batch = pad([data.examples[i] for i in indices]).to(device)
    output = model(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False)
    return token_loss(output.logits, batch, teacher, data.teacher_share)
