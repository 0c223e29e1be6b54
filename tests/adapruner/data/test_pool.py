"""The pool's files are read back as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapruner.data.pool import (
    DomainSummary,
    Pool,
    PoolSummary,
    SourceSummary,
    SplitSummary,
    TestTexts,
    TokenizerSummary,
    read_finetune_rows,
    write_finetune_rows,
)
from adapruner.errors import UserError
from tests.models import tokens


def test_token_splits_are_read_back_as_written(tmp_path: Path) -> None:
    pool = Pool(tokens(4, 8), torch.zeros(4).int(), tokens(6, 8), tokens(2, 8), tokens(3, 8))
    pool.write(tmp_path)
    again = Pool.read(tmp_path)
    for name, tensor in vars(pool).items():
        assert torch.equal(getattr(again, name), tensor), name
        assert getattr(again, name).dtype == torch.int32, name


def test_finetuning_rows_keep_every_character(tmp_path: Path) -> None:
    # Unicode has further line separators, which end no row.
    rows = [
        {"text": "one\ntwo\r\u2028three\u2029four\x85five \u00fc"},
        {"instruction": "Go.", "input": "", "output": "Gone.\n"},
    ]
    write_finetune_rows(tmp_path, rows)
    assert read_finetune_rows(tmp_path) == rows


def test_test_texts_keep_every_character_and_their_order(tmp_path: Path) -> None:
    texts = {"b": " \n = A = \u2028\r\n", "a": "z"}
    TestTexts(texts=texts).write(tmp_path)
    again = TestTexts.read(tmp_path).texts
    assert list(again.items()) == list(texts.items())


def test_a_summary_is_read_back_as_written(tmp_path: Path) -> None:
    source = SourceSummary(
        setting="calibration.source", uri="t.txt", content_hash="00", read=3, too_short=1,
        duplicate=1, kept=1, used=1,
    )  # fmt: skip
    domain = DomainSummary(name="a.txt", calibration=1, update=1)
    split = SplitSummary(available=3, documents=2, used=1, tokens=16, sha256="00")
    summary = PoolSummary(
        seed=1,
        min_tokens=16,
        sequence_length=16,
        tokenizer=TokenizerSummary(type="T", vocabulary=9, begins_with_bos=False),
        sources=[source],
        domains=[domain],
        splits={"calibration": split},
    )
    summary.write(tmp_path)
    assert PoolSummary.read(tmp_path) == summary


def test_an_invalid_summary_is_refused_with_the_field(tmp_path: Path) -> None:
    (tmp_path / PoolSummary.FILE).write_text('{"seed": "x"}')
    with pytest.raises(UserError, match="seed"):
        PoolSummary.read(tmp_path)
