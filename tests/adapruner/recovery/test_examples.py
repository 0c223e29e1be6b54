"""Examples, their labels, batches and padding."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import pytest
import torch

from adapruner.data.pool import read_finetune_rows, write_finetune_rows
from adapruner.errors import UserError
from adapruner.models.checkpoint import load_tokenizer
from adapruner.recovery.examples import (
    IGNORE,
    Example,
    batches,
    encode_rows,
    pad,
    select_examples,
)
from tests.adapruner.conftest import Workplace


def test_only_the_response_is_trained_on(workplace: Workplace) -> None:
    tokenizer = load_tokenizer(workplace.checkpoint)
    row = {"instruction": "w5", "input": "", "output": "w7 w8"}
    ((tokens, labels),) = encode_rows([row], tokenizer, 100)
    assert tokens[-3:] == labels[-3:] == [7, 8, tokenizer.eos_token_id]
    assert set(labels[:-3]) == {IGNORE}


def test_a_response_is_truncated_and_a_row_without_room_for_one_dropped(
    workplace: Workplace,
) -> None:
    tokenizer = load_tokenizer(workplace.checkpoint)
    row = {"instruction": "w5", "input": "w6", "output": "w7 w8"}
    ((tokens, _),) = encode_rows([row], tokenizer, 100)
    ((truncated, labels),) = encode_rows([row], tokenizer, len(tokens) - 2)
    assert truncated == tokens[:-2] and labels[-1] == 7
    assert encode_rows([row], tokenizer, len(tokens) - 3) == []


def test_texts_are_joined_and_split_into_full_windows(workplace: Workplace) -> None:
    tokenizer = load_tokenizer(workplace.checkpoint)
    windows = encode_rows([{"text": "w5 w6 w7"}, {"text": "w8 w9"}], tokenizer, 3)
    assert windows == [([5, 6, 7], [5, 6, 7]), ([2, 8, 9], [2, 8, 9])]


def test_a_row_with_any_line_separator_is_one_row(workplace: Workplace, tmp_path: Path) -> None:
    rows = [{"text": "w5\u2028w6\u2029w7\x85w8 " * 40}]
    write_finetune_rows(tmp_path, rows)
    assert read_finetune_rows(tmp_path) == rows
    assert select_examples(tmp_path, load_tokenizer(workplace.checkpoint), 16, 5)


def test_the_first_examples_are_selected(workplace: Workplace) -> None:
    tokenizer = load_tokenizer(workplace.checkpoint)
    everything = select_examples(workplace.pool, tokenizer, 16, 1000)
    assert select_examples(workplace.pool, tokenizer, 16, 3) == everything[:3]


def test_a_split_without_an_example_is_refused(workplace: Workplace) -> None:
    tokenizer = load_tokenizer(workplace.checkpoint)
    with pytest.raises(UserError, match="5000") as refused:
        select_examples(workplace.pool, tokenizer, 5000, 3)
    assert "finetune.sequence_length" in str(refused.value)


def test_an_epoch_has_every_index_at_most_once_and_its_own_order() -> None:
    order = list(islice(batches(7, 2, seed=0), 6))
    assert all(len(batch) == 2 for batch in order)
    first, second = list(chain(*order[:3])), list(chain(*order[3:]))
    assert len(set(first)) == len(set(second)) == 6
    assert first != second
    assert order == list(islice(batches(7, 2, seed=0), 6))
    assert order != list(islice(batches(7, 2, seed=1), 6))


def test_padding_is_not_trained_on_and_not_attended_to() -> None:
    batch = pad([Example([5, 6, 7], [IGNORE, 6, 7]), Example([8], [8])])
    assert batch.tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.labels.tolist() == [[IGNORE, 6, 7], [8, IGNORE, IGNORE]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert all(part.dtype == torch.int64 for part in batch)
