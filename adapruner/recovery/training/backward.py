"""The loss of a batch and its gradients, with the logits of a few tokens in memory at a time.

The gradient of the loss with respect to the decoder's output is added up piece by piece, then
passed back through the decoder at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from adapruner.evaluation.divergence import TopLogProbs, divergence
from adapruner.models.head import LOGITS_AT_ONCE, decoder_output, head_logits
from adapruner.recovery.distributed.share import ALONE, Share
from adapruner.recovery.training.examples import IGNORE, Batch


class Piece(NamedTuple):
    """A part of one example, the teacher's distributions for it, and its trained tokens.

    `row` and `columns` are its place in the batch; the first token is not predicted.
    """

    batch: Batch
    teacher: TopLogProbs | None
    row: int
    columns: slice
    trained: int


def add_gradients(
    model: Any,
    batch: Batch,
    teacher: TopLogProbs | None,
    teacher_share: float = 1.0,
    share: Share = ALONE,
) -> float:
    """The mean loss of `token_loss`; its gradients are added to those of the weights of `model`.

    There are none where the loss is not finite. Of several processes, each has a part of the batch:
    the loss is that of all parts together, and the sum of the gradients is its gradient.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    output = decoder_output(causal, input_ids=batch.tokens, attention_mask=batch.mask)
    hidden = output.last_hidden_state.detach().requires_grad_()
    parts = pieces(batch, teacher, LOGITS_AT_ONCE)
    trained, total = share.total(sum(part.trained for part in parts)), 0.0
    for part in parts:
        states = hidden[part.row : part.row + 1, part.columns]
        logits = head_logits(causal, output, states, part.batch.tokens)
        loss = token_loss(logits, part.batch, part.teacher, teacher_share)
        loss = loss * (part.trained / trained)
        total += loss.item()
        loss.backward()  # type: ignore[no-untyped-call]
    total = share.total(total)
    if math.isfinite(total):
        output.last_hidden_state.backward(hidden.grad)
    return total


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


def pieces(batch: Batch, teacher: TopLogProbs | None, size: int) -> list[Piece]:
    """The batch in parts of at most `size` predicted tokens, without those that are not trained."""
    result, first = [], 0
    length = batch.tokens.shape[1] - 1
    for row, real in enumerate(batch.mask[:, 1:].sum(1).tolist()):
        for start in range(0, length, size):
            columns = slice(start, min(start + size, length) + 1)
            part = Batch(*(tensor[row : row + 1, columns] for tensor in batch))
            trained = int((part.labels[:, 1:] != IGNORE).sum())
            rows = slice(first + start, first + min(start + size, real))
            expected = teacher and TopLogProbs(teacher.tokens[rows], teacher.log_probs[rows])
            if trained:
                result.append(Piece(part, expected, row, columns, trained))
        first += real
    return result
