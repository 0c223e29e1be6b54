"""Teacher logits belong to the examples that they were computed for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapruner.config import TeacherConfig
from adapruner.errors import UserError
from adapruner.models.storage.checkpoint import load_model, load_tokenizer
from adapruner.models.streamed.layers import stream_model
from adapruner.recovery.training.examples import Example, select_examples
from adapruner.recovery.training.teacher_logits import (
    FILE,
    TeacherSummary,
    compute_teacher_logits,
    logits_of,
    read_teacher_logits,
    teacher_logits,
)
from tests.adapruner.conftest import Workplace

TEACHER = TeacherConfig(sequence_length=16, examples=11, top_k=5)


def test_examples_of_different_lengths_keep_their_own_logits(workplace: Workplace) -> None:
    model = load_model(workplace.checkpoint, workplace.model)
    examples = [Example(ids, ids) for ids in ([5, 6, 7, 8], [9, 10], [3, 4, 5])]
    together = teacher_logits(model, examples, 5)
    for number, example in enumerate(examples):
        alone = teacher_logits(model, [example], 5)
        part = logits_of(together, examples, [number])
        assert len(part.tokens) == len(example.tokens) - 1
        assert torch.equal(part.tokens, alone.tokens)
        torch.testing.assert_close(part.log_probs, alone.log_probs)


def test_a_streamed_model_has_the_logits_of_the_whole_one(workplace: Workplace) -> None:
    models = (
        load_model(workplace.checkpoint, workplace.model),
        stream_model(workplace.checkpoint, torch.device("cpu"), torch.float32),
    )
    examples = [Example(ids, ids) for n in range(3, 20) for ids in ([5 + n] * n,)]
    whole, streamed = (teacher_logits(model, examples, 5) for model in models)
    assert all(torch.equal(*pair) for pair in zip(whole, streamed, strict=True))


def test_logits_follow_the_order_of_the_indices(workplace: Workplace) -> None:
    model = load_model(workplace.checkpoint, workplace.model)
    examples = [Example(ids, ids) for ids in ([5, 6, 7, 8], [9, 10], [3, 4, 5])]
    logits = teacher_logits(model, examples, 5)
    parts = [logits_of(logits, examples, [i]).tokens for i in (2, 0)]
    assert torch.equal(logits_of(logits, examples, [2, 0]).tokens, torch.cat(parts))


def test_written_logits_are_those_of_the_dense_model(workplace: Workplace, tmp_path: Path) -> None:
    summary = compute_teacher_logits(
        workplace.checkpoint, workplace.pool, workplace.model, TEACHER, tmp_path
    )
    assert TeacherSummary.read(tmp_path) == summary
    assert summary == TeacherSummary(examples=11, positions=11 * 15, top_k=5)
    tensors = load_file(tmp_path / FILE)
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "tokens": torch.int32,
        "log_probs": torch.float16,
    }
    tokenizer = load_tokenizer(workplace.checkpoint)
    examples = select_examples(workplace.pool, tokenizer, 16, 11).examples
    model = load_model(workplace.checkpoint, workplace.model)
    written = logits_of(read_teacher_logits(tmp_path), examples, [10])
    log_probs = model(torch.tensor([examples[10].tokens])).logits[0, :-1].log_softmax(-1)
    top = log_probs.topk(5)
    assert torch.equal(written.tokens.long(), top.indices)
    torch.testing.assert_close(written.log_probs, top.values, rtol=1e-3, atol=1e-3)


def test_without_a_teacher_there_are_no_logits(workplace: Workplace, tmp_path: Path) -> None:
    compute_teacher_logits(workplace.checkpoint, workplace.pool, workplace.model, None, tmp_path)
    assert TeacherSummary.read(tmp_path) == TeacherSummary(examples=0, positions=0, top_k=0)
    assert not (tmp_path / FILE).exists()


def test_a_pool_without_examples_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    long = TEACHER.model_copy(update={"sequence_length": 5000})
    with pytest.raises(UserError, match="5000"):
        compute_teacher_logits(
            workplace.checkpoint, workplace.pool, workplace.model, long, tmp_path
        )
