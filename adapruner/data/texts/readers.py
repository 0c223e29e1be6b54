"""The records of a text source: one reader per format; errors name the line or row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from adapruner.data.texts import python_code
from adapruner.data.texts.sources import TextSource
from adapruner.errors import UserError

ALPACA_FIELDS = ("instruction", "input", "output")

_SNIFFED_BYTES = 8192
_SNIFFED_LINES = 1000
_PARQUET_BATCH = 1024
_HEADING = re.compile(r"= ([^=\n].*?) =")


class Record(NamedTuple):
    """One text, and the name of the document that it belongs to (unique within its source)."""

    text: str
    document: str


def read_records(source: TextSource, *, text_field: str, max_records: int) -> Iterator[Record]:
    """The first `max_records` records of `source`, in its order, streamed if the format allows it.

    - Text file: paragraphs, separated by blank lines; where fewer than one line in a hundred is
      blank, every line is a record. A paragraph below a ` = Title = ` heading belongs to the
      document of that title; any other record of a file is a document of its own.
    - JSONL, JSON, Parquet, hub: the string in `text_field` of each row.
    - Wikipedia: passages of some paragraphs; the article is the document.
    - News: a line.
    - Code: passages of a Python file; the file is the document.

    Raises UserError, naming the line or row, for unreadable content.
    """
    if reader := _RECORDS.get(source.kind):
        yield from islice(reader(source), max_records)
    else:
        for where, row in islice(_rows(source, (text_field,)), max_records):
            yield Record(_string(source, where, row, text_field), where)


def read_rows(source: TextSource, *, text_field: str, max_records: int) -> Iterator[dict[str, str]]:
    """The first `max_records` rows for fine-tuning: {"text"} or {"instruction","input","output"}.

    A row with both "instruction" and "output" is an Alpaca row; its "input" may be missing. Any
    other row is a record as in `read_records`.
    """
    if source.kind in _RECORDS:
        for record in read_records(source, text_field=text_field, max_records=max_records):
            yield {"text": record.text}
        return
    for where, row in islice(_rows(source, (text_field, *ALPACA_FIELDS)), max_records):
        if "instruction" in row and "output" in row:
            filled = {**row, "input": row.get("input") or ""}
            yield {name: _string(source, where, filled, name) for name in ALPACA_FIELDS}
        else:
            yield {"text": _string(source, where, row, text_field)}


def read_text(source: TextSource, *, text_field: str, max_records: int) -> str:
    """The whole text of `source`: a text file unchanged, else its records joined by blank lines."""
    if source.kind == "txt":
        return "".join(line for _, line in _lines(source))
    records = read_records(source, text_field=text_field, max_records=max_records)
    return "\n\n".join(record.text for record in records)


def _string(source: TextSource, where: str, row: dict[str, Any], field: str) -> str:
    """The text in a field of a row. Raises UserError for anything but valid text."""
    text = row.get(field)
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{source.uri}: {where}: '{field}' holds an unpaired surrogate"
            ) from None
        return text
    fields = ", ".join(map(str, row)) or "none"
    if field not in row:
        hint = "set text_field, or remove the row"
        raise UserError(f"{source.uri}: {where}: no field '{field}'; fields: {fields}; {hint}")
    kind = "null" if text is None else type(text).__name__
    raise UserError(f"{source.uri}: {where}: '{field}' is {kind}, not a text")


def _lines(source: TextSource) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line; every line end is `\\n`."""
    try:
        with Path(source.location).open("rb") as file:
            if b"\0" in file.read(_SNIFFED_BYTES):
                raise UserError(f"{source.uri} is binary, not text in UTF-8")
            file.seek(0)
            offset = 0
            for number, raw in enumerate(file, 1):
                line = _decode(source, raw, number, offset)
                offset += len(raw)
                end = "\n" if raw.endswith(b"\n") else ""
                yield number, line.removesuffix("\n").removesuffix("\r") + end
    except OSError as error:
        raise UserError(f"{source.uri} can't be read: {error.strerror}") from None


def _decode(source: TextSource, raw: bytes, number: int, offset: int) -> str:
    if b"\0" in raw:
        raise UserError(f"{source.uri} is binary: a zero byte in line {number}")
    try:
        return raw.decode().removeprefix("\ufeff" if number == 1 else "")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{source.uri} is not UTF-8: byte {raw[error.start]:#04x} at offset "
            f"{offset + error.start} (line {number}); convert it to UTF-8"
        ) from None


def _paragraphs(source: TextSource) -> Iterator[Record]:
    title: str | None = None
    for number, paragraph in _blocks(source):
        if heading := _HEADING.fullmatch(paragraph):
            title = f"line {number}: {heading[1]}"
        yield Record(paragraph, title or f"line {number}")


def _blocks(source: TextSource) -> Iterator[tuple[int, str]]:
    """Number of the first line and text of each paragraph, or of each line of a list of lines."""
    sniffed = [line for _, line in islice(_lines(source), _SNIFFED_LINES)]
    is_list_of_lines = sum(not line.strip() for line in sniffed) * 100 < len(sniffed)
    block: list[str] = []
    start = 1
    for number, line in _lines(source):
        if block and (is_list_of_lines or not line.strip()):
            yield start, "".join(block).strip()
            block = []
        if line.strip():
            start = start if block else number
            block.append(line)
    if block:
        yield start, "".join(block).strip()


def _wikipedia(source: TextSource) -> Iterator[Record]:
    from adapruner.data.texts import wikipedia

    for title, markup in wikipedia.articles(Path(source.location)):
        for passage in wikipedia.passages(markup):
            yield Record(passage, title)


def _code(source: TextSource) -> Iterator[Record]:
    folder = Path(source.location)
    for file in python_code.files(folder):
        for passage in python_code.passages(python_code.read(file)):
            yield Record(passage, file.relative_to(folder).as_posix())


def _rows(source: TextSource, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Position ("line 3") and content of each row; of a Parquet file only the columns `fields`."""
    return _ROWS[source.kind](source, fields)


def _jsonl_rows(source: TextSource, _: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in _lines(source):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source.uri}: line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise UserError(f"{source.uri}: line {number} is a {kind}, not an object with fields")
        yield f"line {number}", row


def _json_rows(source: TextSource, _: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        rows = json.loads("".join(line for _, line in _lines(source)))
    except (ValueError, RecursionError) as error:
        hint = "; one row per line needs suffix .jsonl" if "Extra data" in str(error) else ""
        raise UserError(f"{source.uri} is not JSON: {error}{hint}") from None
    if not isinstance(rows, list):
        raise UserError(f"{source.uri} holds a {type(rows).__name__}, not a list of rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise UserError(f"{source.uri}: row {number} is a {kind}, not an object with fields")
        yield f"row {number}", row


def _parquet_rows(
    source: TextSource, fields: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(source.location) as file:
            columns = [name for name in file.schema_arrow.names if name in fields]
            if not columns:
                names = ", ".join(file.schema_arrow.names)
                raise UserError(
                    f"{source.uri}: no column '{fields[0]}'; columns: {names}; set text_field"
                )
            batches = file.iter_batches(batch_size=_PARQUET_BATCH, columns=columns)
            rows: Iterable[dict[str, Any]] = (row for b in batches for row in b.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{source.uri} is not a readable Parquet file: {detail}") from None


def _hub_rows(source: TextSource, _: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    dataset, _hash, split = source.location.partition("#")
    name, _colon, config = dataset.partition(":")
    try:
        rows = datasets.load_dataset(
            name, config or None, split=split, revision=source.revision, streaming=True
        )
        for number, row in enumerate(rows, 1):
            yield f"row {number}", dict(row)
    except UserError:
        raise
    except Exception as error:  # no network, no such data set, no such split: any type
        detail = " ".join(str(error).split())[:200]
        raise UserError(
            f"{source.uri}: can't be read from the hub: {type(error).__name__}: {detail}; "
            "check name, config, split and commit, or use a local file"
        ) from None


_RECORDS: dict[str, Callable[[TextSource], Iterator[Record]]] = {
    "txt": _paragraphs,
    "news": _paragraphs,
    "wikipedia": _wikipedia,
    "code": _code,
}
"""Kind -> reader of its records, for kinds without rows."""

_RowReader = Callable[[TextSource, Sequence[str]], Iterator[tuple[str, dict[str, Any]]]]
_ROWS: dict[str, _RowReader] = {
    "jsonl": _jsonl_rows,
    "json": _json_rows,
    "parquet": _parquet_rows,
    "hub": _hub_rows,
}
"""Kind -> reader of its rows."""
