"""The records, rows and texts of a source, and the one line for unreadable ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from adapruner.data.texts.readers import read_records, read_rows, read_text
from adapruner.data.texts.sources import TextSource
from adapruner.errors import UserError
from tests.adapruner.data.pools import DATA, needs_data, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def source_of(path: Path) -> TextSource:
    return resolve(str(path))[str(path)]


def texts_of(path: Path, field: str = "text", limit: int = 100) -> list[str]:
    return [r.text for r in read_records(source_of(path), text_field=field, max_records=limit)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_every_format_has_the_same_records(tmp_path: Path) -> None:
    rows = [
        {"text": "One.", "n": 1},
        {"text": "Zwei ü.", "n": 2},
        {"text": "Three.\nLine.", "n": 3},
    ]
    files = [
        write(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, rows)) + "\n"),
        write(tmp_path / "a.json", json.dumps(rows)),
        write_parquet(tmp_path / "a.parquet", rows),
        write(tmp_path / "a.txt", "\ufeffOne.\r\n\r\nZwei ü.\r\n \r\nThree.\r\nLine.".encode()),
    ]
    for file in files:
        assert texts_of(file) == ["One.", "Zwei ü.", "Three.\nLine."], file.name
        assert texts_of(file, limit=2) == ["One.", "Zwei ü."], file.name


def test_without_blank_lines_every_line_is_a_record(tmp_path: Path) -> None:
    file = write(tmp_path / "lines.txt", "".join(f"text {i}\n" for i in range(300)) + "\nlast")
    assert texts_of(file, limit=1000) == [f"text {i}" for i in range(300)] + ["last"]


def test_paragraphs_below_a_title_are_one_document(tmp_path: Path) -> None:
    text = "before\n\n = First = \n\n a \n\n = = Section = = \n\n b \n\n = Second = \n\n c \n"
    file = write(tmp_path / "wiki.txt", text)
    records = list(read_records(source_of(file), text_field="text", max_records=99))
    documents = [r.document for r in records if r.text in ("before", "a", "b", "c")]
    assert documents[1] == documents[2]
    assert len(set(documents)) == 3


def test_the_whole_text_of_a_file_is_unchanged(tmp_path: Path) -> None:
    text = " \n = A = \n \n some , text \n"
    file = write(tmp_path / "t.txt", text)
    assert read_text(source_of(file), text_field="text", max_records=1) == text
    rows = write(tmp_path / "t.jsonl", '{"page": "a"}\n{"page": "b"}\n')
    assert read_text(source_of(rows), text_field="page", max_records=9) == "a\n\nb"


def test_rows_are_alpaca_rows_or_texts(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Say hi.", "input": "", "output": "Hi.", "id": 1},
        {"instruction": "Add.", "output": "3", "input": "1 2", "id": 2},
    ]
    expected = [{k: v for k, v in row.items() if k != "id"} for row in rows]
    files = [
        write(tmp_path / "a.json", json.dumps(rows)),
        write_parquet(tmp_path / "a.parquet", rows),
    ]
    for file in files:
        assert list(read_rows(source_of(file), text_field="text", max_records=9)) == expected
    no_input = write(tmp_path / "b.jsonl", '{"instruction": "Go.", "output": "Gone."}')
    assert list(read_rows(source_of(no_input), text_field="text", max_records=9)) == [
        {"instruction": "Go.", "input": "", "output": "Gone."}
    ]
    plain = write(tmp_path / "c.txt", "a\n\nb")
    assert list(read_rows(source_of(plain), text_field="text", max_records=9)) == [
        {"text": "a"},
        {"text": "b"},
    ]


UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.txt", b"", "is empty"),
    "binary": ("a.txt", b"GGUF\0\1\2", "is binary"),
    "binary later": ("a.txt", b"text\n" * 3000 + b"\0", "a zero byte in line 3001"),
    "latin-1": ("a.txt", "gut\nfünf".encode("latin-1"), "byte 0xfc at offset 5 (line 2)"),
    "broken row": ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    "row is a list": ("a.jsonl", b'{"text": "a"}\n\n[1]\n', "line 3 is a list"),
    "no field": ("a.jsonl", b'{"text": "a"}\n{"body": "b", "n": 1}\n', "line 2: no field 'text'"),
    "null": ("a.jsonl", b'{"text": null}\n', "line 1: 'text' is null"),
    "number": ("a.json", b'[{"text": 5}]', "row 1: 'text' is int"),
    "surrogate": ("a.jsonl", b'{"text": "\\ud800"}\n', "surrogate"),
    "not JSON": ("a.json", b"[1,", "is not JSON"),
    "object": ("a.json", b'{"text": "a"}', "holds a dict, not a list of rows"),
    "rows of text": ("a.json", b'["a"]', "row 1 is a str"),
    "lines in .json": ("a.json", b'{"text": "a"}\n{"text": "b"}', ".jsonl"),
    "not Parquet": ("a.parquet", b"PAR1 no", "is not a readable Parquet file"),
    "unknown kind": ("a.csv", b"text\n", "'.csv'"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_is_refused_in_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    file_name, content, expected = UNREADABLE[name]
    file = write(tmp_path / file_name, content)
    with pytest.raises(UserError) as error:
        texts_of(file, limit=10_000)
    assert expected in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_absent_field_is_refused_with_the_existing_ones(tmp_path: Path) -> None:
    rows = [{"body": "a", "n": 1}]
    files = [
        write(tmp_path / "a.jsonl", json.dumps(rows[0])),
        write_parquet(tmp_path / "a.parquet", rows),
    ]
    for file in files:
        with pytest.raises(UserError, match="body, n"):
            texts_of(file)
        assert texts_of(file, field="body") == ["a"]


def test_a_hub_that_does_not_answer_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    uri = f"hub:adapruner-no-such-owner/none@{COMMIT}"
    source = resolve(uri)[uri]
    with pytest.raises(UserError, match="can't be read from the hub") as error:
        list(read_records(source, text_field="text", max_records=1))
    assert "\n" not in str(error.value)


@needs_data
def test_real_files_are_read_whole() -> None:
    files = {
        "calibration/prose.jsonl": ("text", 5188),
        "text/ptb-test.txt": ("text", 3761),
        "text/wikitext2-raw-test-pages.jsonl": ("page", 60),
    }
    for name, (field, count) in files.items():
        assert len(texts_of(DATA / name, field, 10_000)) == count, name
    pages = read_records(
        source_of(DATA / "text/wikitext2-raw-test.txt"), text_field="text", max_records=10_000
    )
    assert len({record.document for record in pages}) == 60
    alpaca = source_of(DATA / "finetune/alpaca.json")
    rows = list(read_rows(alpaca, text_field="text", max_records=10_000))
    assert len(rows) == 999
    assert all(list(row) == ["instruction", "input", "output"] for row in rows)
