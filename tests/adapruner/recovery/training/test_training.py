"""The losses by their definition, the learning rate of every step, and when training stops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from adapruner.data.pool import Pool
from adapruner.errors import UserError
from adapruner.evaluation.divergence import TopLogProbs
from adapruner.recovery.training.backward import token_loss
from adapruner.recovery.training.examples import IGNORE, Batch
from adapruner.recovery.training.training import learning_rate_schedule, steps_between_checks
from adapruner.recovery.training.training_data import HELD_OUT_WINDOWS
from tests.adapruner.conftest import Workplace
from tests.adapruner.recovery.requests import recovered, settings

LABELS = torch.tensor([[3, 1, 4, 1, IGNORE], [IGNORE, IGNORE, 6, 2, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
BATCH = Batch(LABELS.clamp_min(0), LABELS, MASK)
TRAINED = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 4))
"""Row and position of the tokens that are trained on; the first has no prediction."""


def rate(step: int, warmup: int, steps: int) -> float:
    """The share of the learning rate at a step, by the formula."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


@pytest.mark.parametrize("steps", [1, 2, 30, 300])
@pytest.mark.parametrize("warmup", [0, 1, 2, 5, 29, 30, 300, 307])
def test_the_learning_rate_rises_linearly_and_decays_by_a_cosine(warmup: int, steps: int) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=4e-4)
    schedule = learning_rate_schedule(optimizer, warmup, steps)
    for step in range(steps):
        expected = 4e-4 * rate(step, warmup, steps)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12, abs=0)
        weight.grad = torch.zeros(1)
        optimizer.step()
        schedule.step()


def test_the_loss_of_text_is_the_mean_cross_entropy_of_trained_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, generator=generator)
    log_probs = logits.log_softmax(-1)
    losses = [-float(log_probs[row, at - 1, LABELS[row, at]]) for row, at in TRAINED]
    mean = sum(losses) / len(losses)
    assert float(token_loss(logits, BATCH, None)) == pytest.approx(mean, rel=1e-5)


def test_the_loss_both_is_the_mean_of_the_two() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 7, generator=generator).unbind()
    top = torch.cat([teacher[0, :3], teacher[1, :4]]).log_softmax(-1).topk(3)
    expected = TopLogProbs(top.indices.int(), top.values)
    text, divergence = token_loss(student, BATCH, None), token_loss(student, BATCH, expected)
    both = token_loss(student, BATCH, expected, teacher_share=0.5)
    assert float(both) == pytest.approx(float(text + divergence) / 2, rel=1e-6)


@pytest.mark.parametrize("count", [7, 3])
def test_the_loss_of_distillation_is_the_divergence_from_the_teacher(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 7, generator=generator).unbind()
    # The teacher's logits are those of all real positions but the last of each example.
    top = torch.cat([teacher[0, :3], teacher[1, :4]]).log_softmax(-1).topk(count)
    expected = TopLogProbs(top.indices.int(), top.values)
    divergences = []
    for row, at in TRAINED:
        p, q = teacher[row, at - 1].softmax(-1), student[row, at - 1].softmax(-1)
        kept = p.topk(count).indices
        groups = [(float(p[k]), float(q[k])) for k in kept]
        if count < 7:
            groups.append((1 - sum(a for a, _ in groups), 1 - sum(b for _, b in groups)))
        divergences.append(sum(a * math.log(a / b) for a, b in groups))
    mean = sum(divergences) / len(divergences)
    assert float(token_loss(student, BATCH, expected)) == pytest.approx(mean, rel=1e-3)
    assert float(token_loss(teacher, BATCH, expected)) == pytest.approx(0, abs=1e-5)


def test_the_held_out_loss_is_measured_at_intervals_and_at_the_end(
    workplace: Workplace, tmp_path: Path
) -> None:
    training = settings(steps=19, batch_size=4, sequence_length=16)
    curve = recovered(workplace, training, tmp_path / "out").curve
    measured = [point.step for point in curve if point.held_out is not None]
    held_out = Pool.read(workplace.pool).held_out[:HELD_OUT_WINDOWS]
    every = steps_between_checks(training, held_out.numel())
    assert measured == [*range(every, 19, every), 19]


@pytest.mark.parametrize(
    ("steps", "tokens", "every"),
    [(80, 512, 10), (40, 2048, 14), (6, 2048, 6), (2, 2048, 2), (1, 64, 1), (7, 0, 1)],
)
def test_held_out_checks_take_a_tenth_of_the_training(steps: int, tokens: int, every: int) -> None:
    training = settings(steps=steps, batch_size=4, sequence_length=128)
    assert steps_between_checks(training, tokens) == every


def test_training_stops_at_a_loss_that_is_not_finite(workplace: Workplace, tmp_path: Path) -> None:
    wild = settings(learning_rate=1e30, warmup_steps=0)
    with pytest.raises(UserError, match=r"step \d+ is (nan|inf)") as refused:
        recovered(workplace, wild, tmp_path / "out")
    assert "finetune.learning_rate" in str(refused.value)
