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
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from adapruner.config import FinetuneConfig
from adapruner.errors import UserError
from adapruner.evaluation.divergence import TopLogProbs
from adapruner.evaluation.perplexity import batches_of, mean_loss
from adapruner.models.head import LOGITS_AT_ONCE
from adapruner.progress import announce, track
from adapruner.recovery.distributed.share import ALONE, Share
from adapruner.recovery.results import CurvePoint
from adapruner.recovery.training.backward import add_gradients
from adapruner.recovery.training.examples import Example, batches, pad
from adapruner.recovery.training.teacher_logits import logits_of

HELD_OUT_CHECKS = 8
"""Most measurements of the held-out loss over the whole training, with that after the last step."""
HELD_OUT_SHARE = 0.1
"""Largest share of the training's time that they take; the last step is measured in any case."""
STEP_PASSES = 3
"""Forward passes that take as long as a step over the same tokens."""
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class TrainingData:
    """Examples, the teacher's logits for all of them, and held-out windows, int [M, T].

    Without a `teacher` the loss is the cross-entropy of the text; `teacher_share` is the share of
    the teacher's divergence in it. `by_domain` is the number of examples of each domain, empty
    where the texts have none. `share` is this process's part of each batch.
    """

    examples: list[Example]
    teacher: TopLogProbs | None
    held_out: Tensor
    teacher_share: float = 1.0
    by_domain: tuple[int, ...] = ()
    share: Share = ALONE


def train(
    model: Any,
    data: TrainingData,
    settings: FinetuneConfig,
    seed: int,
    before_step: Callable[[int], None] | None = None,
) -> list[CurvePoint]:
    """Trains the weights of `model` that require gradients, with AdamW; one curve point per step.

    `before_step` is called with the number of each step, from 1 on, before its forward pass. Of
    several processes, each has all trained weights, and gets the same ones and the same curve.

    Raises UserError, with the step, at the first loss that is not finite.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    if settings.recomputes:
        model.activation_checkpointing_enable()
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    schedule = learning_rate_schedule(optimizer, settings.warmup_steps, settings.steps)
    announce(
        f"fine-tuning: {settings.steps} steps of {settings.batch_size} x "
        f"{settings.sequence_length} tokens, {sum(p.numel() for p in weights):,} weights"
    )
    curve = []
    every = steps_between_checks(settings, data.held_out.numel())
    order = batches(len(data.examples), settings.batch_size, seed)
    for step in track(range(1, settings.steps + 1), "fine-tuning"):
        model.train()
        if before_step is not None:
            before_step(step)
        loss = _add_gradients(model, data, next(order))
        if not math.isfinite(loss):
            raise UserError(
                f"the loss of fine-tuning step {step} is {loss}; lower "
                f"finetune.learning_rate ({settings.learning_rate:g}) or use dtype: float32"
            )
        data.share.add_up([p.grad for p in weights if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(weights, MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        model.eval()
        is_checked = step % every == 0 or step == settings.steps
        held_out = _held_out_loss(model, data) if is_checked else None
        curve.append(CurvePoint(step=step, loss=loss, held_out=held_out))
    return curve


def steps_between_checks(settings: FinetuneConfig, held_out_tokens: int) -> int:
    """Steps from one measurement of the held-out loss to the next; the last step is always one."""
    trained = STEP_PASSES * settings.steps * settings.batch_size * settings.sequence_length
    affordable = int(HELD_OUT_SHARE * trained / max(held_out_tokens, 1))
    return math.ceil(settings.steps / min(max(affordable, 1), HELD_OUT_CHECKS))


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


def _add_gradients(model: Any, data: TrainingData, indices: list[int]) -> float:
    teacher, indices = None, list(data.share.of(indices))
    if data.teacher is not None:
        teacher = logits_of(data.teacher, data.examples, indices)
    device = model.get_input_embeddings().weight.device
    batch = pad([data.examples[i] for i in indices]).to(device)
    return add_gradients(model, batch, teacher, data.teacher_share, data.share)


def _held_out_loss(model: Any, data: TrainingData) -> float:
    """The mean loss of the windows, with no more logits in memory than a training step needs."""
    parts, share, total = batches_of(data.held_out, LOGITS_AT_ONCE), data.share, 0.0
    passes = math.ceil(len(parts) / share.world)  # as many in each process, see `load_sharded`
    for turn in share.of(range(passes * share.world)):
        part = parts[turn % len(parts)]
        loss = mean_loss(model, part) * len(part)
        total += loss if turn < len(parts) else 0.0
    return share.total(total) / len(data.held_out)
