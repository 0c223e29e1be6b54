"""Samples: tokenised like the whole text, with BOS if the tokenizer adds it, no duplicates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from adapruner.config import CalibrationConfig
from adapruner.data.samples import (
    Deduplicator,
    SampleTokenizer,
    normalise,
    read_items,
    records_of,
    samples_of,
)
from adapruner.data.texts.readers import Record
from adapruner.errors import UserError
from tests.adapruner.data.pools import save_tokenizer, sentences

LENGTHS = CalibrationConfig(source="x", min_tokens=16, sequence_length=16)


def test_samples_begin_with_bos_if_the_tokenizer_adds_it(checkpoint: Path, tmp_path: Path) -> None:
    text = sentences(1)[0]
    with_bos = SampleTokenizer(save_tokenizer(tmp_path / "bos", bos=True))
    without = SampleTokenizer(checkpoint)
    assert with_bos.summary().begins_with_bos
    assert not without.summary().begins_with_bos
    ids = without.head(text, 15).tolist()
    assert with_bos.head(text, 16).tolist() == [0, *ids]
    assert with_bos.count([text]) == without.count([text])


def test_a_long_text_is_cut_as_if_it_were_tokenised_whole(checkpoint: Path) -> None:
    # The first tokens are so long that more characters than usual are needed.
    texts = ["z" * 320 + text for text in sentences(30, words=2000)]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    for text, (ids, end) in zip(texts, SampleTokenizer(checkpoint).heads(texts, 16), strict=True):
        assert ids.tolist() == tokenizer(text).input_ids[:16]
        assert tokenizer.decode(ids) == text[:end]


def test_duplicates_and_short_records_are_counted(checkpoint: Path) -> None:
    one, other = sentences(2)
    texts = [one, one.upper(), other, other + " another end", "short", "Short", ""]
    records = [Record(text, f"line {n}") for n, text in enumerate(texts)]
    items, counts = read_items(records, 3, SampleTokenizer(checkpoint), LENGTHS, Deduplicator())
    assert [item.text for item in items] == [one, other, "short"]
    assert [item.document for item in items] == [(3, "line 0"), (3, "line 2"), (3, "line 4")]
    assert (counts.read, counts.too_short, counts.duplicate, counts.kept) == (7, 3, 2, 2)


@pytest.mark.parametrize("bos", [False, True])
def test_a_long_record_gives_adjacent_windows(bos: bool, tmp_path: Path) -> None:
    tokenizer = SampleTokenizer(save_tokenizer(tmp_path / "checkpoint", bos=bos))
    text = sentences(1, words=300)[0]
    (item,), _ = read_items([Record(text, "a")], 0, tokenizer, LENGTHS, Deduplicator())
    whole = tokenizer.head(text, 100).tolist()[bos:]
    assert len(item.windows) == LENGTHS.samples_per_record == 4
    assert [len(window) for window in item.windows] == [16] * 4
    assert [token for window in item.windows for token in window[bos:].tolist()] == whole[
        : 4 * (16 - bos)
    ]
    assert all(window[0] == 0 for window in item.windows) or not bos
    assert item.windows[0].tolist() == item.tokens.tolist()
    assert len(tokenizer.head(text[: item.end], 1000)) >= 4 * (16 - bos) + bos


def test_a_record_gives_whole_windows_only(checkpoint: Path) -> None:
    tokenizer = SampleTokenizer(checkpoint)
    texts = [sentences(1, seed=seed, words=words)[0] for seed, words in enumerate((2, 6, 12, 40))]
    records = [Record(text, text) for text in texts]
    items, _ = read_items(records, 0, tokenizer, LENGTHS, Deduplicator())
    expected = [min(4, tokenizer.count([text]) // 16) for text in texts]
    assert [len(item.windows) for item in items] == expected
    assert expected[0] == 0 < expected[1] < expected[3] == 4
    assert len(samples_of(items)) == sum(expected)
    assert [item.text for item in records_of(samples_of(items))] == texts[1:]


def test_a_later_window_that_is_an_earlier_sample_is_left_out(checkpoint: Path) -> None:
    tokenizer = SampleTokenizer(checkpoint)
    window = " z" * 16
    records = [Record(text + window * 3, text) for text in ("a " * 16, "b " * 16)]
    items, counts = read_items(records, 0, tokenizer, LENGTHS, Deduplicator())
    samples = [tuple(sample.tokens.tolist()) for sample in samples_of(items)]
    assert counts.kept == 2
    assert len(set(samples)) == len(samples) < 8


def test_normalised_texts_differ_neither_in_case_nor_in_white_space() -> None:
    assert normalise(" Straße\n\tTwo ") == normalise("STRASSE two") == "strasse two"


def test_a_checkpoint_without_a_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable tokenizer") as error:
        SampleTokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_code_of_a_tokenizer_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, ran = save_tokenizer(tmp_path / "checkpoint"), tmp_path / "ran"
    (checkpoint / "own.py").write_text(
        f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "class Own(PreTrainedTokenizerFast): pass\n"
    )
    file = checkpoint / "tokenizer_config.json"
    fields = json.loads(file.read_text())
    fields |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    file.write_text(json.dumps(fields))
    monkeypatch.setattr("builtins.input", lambda _: "y")  # a user who agrees to everything
    with pytest.raises(UserError, match="no usable tokenizer"):
        SampleTokenizer(checkpoint)
    assert not ran.exists()
