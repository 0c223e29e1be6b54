"""Examples, their labels, batches and padding."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import pytest
import torch

from adapruner.data.pool import Pool, read_finetune_rows, write_finetune_rows
from adapruner.errors import UserError
from adapruner.models.storage.checkpoint import load_tokenizer
from adapruner.recovery.training.examples import (
    IGNORE,
    Example,
    batches,
    encode_rows,
    pad,
    select_examples,
)
from tests.adapruner.conftest import Workplace
from tests.adapruner.recovery.requests import domains_of, with_domains


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
    assert select_examples(tmp_path, load_tokenizer(workplace.checkpoint), 16, 5).examples


def test_the_first_examples_are_selected(workplace: Workplace) -> None:
    tokenizer = load_tokenizer(workplace.checkpoint)
    everything = select_examples(workplace.pool, tokenizer, 16, 1000).examples
    assert select_examples(workplace.pool, tokenizer, 16, 3) == (everything[:3], ())


def test_a_split_without_an_example_is_refused(workplace: Workplace) -> None:
    tokenizer = load_tokenizer(workplace.checkpoint)
    with pytest.raises(UserError, match="5000") as refused:
        select_examples(workplace.pool, tokenizer, 5000, 3)
    assert "finetune.sequence_length" in str(refused.value)


def test_every_prefix_has_the_shares_and_no_window_joins_domains(
    workplace: Workplace, tmp_path: Path
) -> None:
    work = with_domains(workplace, tmp_path / "pool", (40, 40, 40))
    tokenizer, shares = load_tokenizer(work.checkpoint), (2.0, 1.0, 1.0)
    selected = select_examples(work.pool, tokenizer, 12, 60, shares)
    assert selected.by_domain == (30, 15, 15)
    assert all(len(domains_of(example)) == 1 for example in selected.examples)
    owners = [domains_of(example).pop() for example in selected.examples]
    for length in range(1, 61):
        for domain, share in enumerate(shares):
            assert abs(owners[:length].count(domain) - length * share / 4) <= 1
    fewer = select_examples(work.pool, tokenizer, 12, 7, shares)
    assert fewer.examples == selected.examples[:7]


def test_others_provide_what_a_domain_lacks(workplace: Workplace, tmp_path: Path) -> None:
    work = with_domains(workplace, tmp_path / "pool", (40, 3, 40))
    tokenizer = load_tokenizer(work.checkpoint)
    few = select_examples(work.pool, tokenizer, 16, 9, (1.0, 1.0, 1.0))
    assert few.by_domain == (3, 3, 3)
    many = select_examples(work.pool, tokenizer, 16, 43, (1.0, 1.0, 1.0))
    assert many.by_domain == (20, 3, 20)
    everything = select_examples(work.pool, tokenizer, 16, 1000, (1.0, 1.0, 1.0))
    assert everything.by_domain == (40, 3, 40)


def test_a_domain_without_a_share_gives_no_example(workplace: Workplace, tmp_path: Path) -> None:
    work = with_domains(workplace, tmp_path / "pool", (4, 40))
    tokenizer = load_tokenizer(work.checkpoint)
    assert select_examples(work.pool, tokenizer, 16, 20, (1.0, 0.0)).by_domain == (4, 0)


@pytest.mark.parametrize(("calibration", "expected"), [((6, 6), (10, 10)), ((9, 3), (15, 5))])
def test_without_shares_they_are_those_of_the_calibration_pool(
    calibration: tuple[int, int], expected: tuple[int, int], workplace: Workplace, tmp_path: Path
) -> None:
    work = with_domains(workplace, tmp_path / "pool", (40, 40))
    first, second = calibration
    domain = torch.tensor([0] * first + [1] * (second + 4), dtype=torch.int32)
    replace(Pool.read(work.pool), domain=domain).write(work.pool)
    tokenizer = load_tokenizer(work.checkpoint)
    assert select_examples(work.pool, tokenizer, 16, 20).by_domain == expected


def test_examples_of_one_domain_are_those_of_rows_without_domain(
    workplace: Workplace, tmp_path: Path
) -> None:
    work = with_domains(workplace, tmp_path / "pool", (9,))
    rows = read_finetune_rows(work.pool)
    tokenizer = load_tokenizer(work.checkpoint)
    examples, by_domain = select_examples(work.pool, tokenizer, 12, 8)
    assert examples == encode_rows([{"text": row["text"]} for row in rows], tokenizer, 12)[:8]
    assert by_domain == (8, 0), "the pool has two domains"


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
