"""Python source code of a folder, as passages."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from adapruner.errors import UserError

PASSAGE_CHARACTERS = 1000
"""Minimum length of a passage: about 300 tokens."""

_TEST_FOLDERS = frozenset({"test", "tests", "testing"})


def files(folder: Path) -> list[Path]:
    """The .py files below `folder` in sorted order, without tests."""
    return sorted(file for file in folder.rglob("*.py") if not _is_test(file.relative_to(folder)))


def _is_test(file: Path) -> bool:
    return (
        not _TEST_FOLDERS.isdisjoint(file.parts)
        or file.stem == "conftest"
        or file.stem.startswith("test_")
        or file.stem.endswith("_test")
    )


def read(file: Path) -> str:
    """The text of a file in the encoding that it declares. Raises UserError if it has another."""
    try:
        with tokenize.open(file) as lines:
            return lines.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a readable Python file: {error}") from None


def passages(code: str) -> Iterator[str]:
    """Passages of whole parts of `code`, in its order and unchanged; blank lines separate parts.

    A passage ends with the part that brings it to PASSAGE_CHARACTERS; a shorter rest is dropped.
    """
    parts = re.split(r"(\n(?:[^\S\n]*\n)+)", code.strip("\n"))
    passage = ""
    for part, blank_lines in zip(parts[::2], [*parts[1::2], ""], strict=True):
        passage += part
        if len(passage) >= PASSAGE_CHARACTERS:
            yield passage
            passage = ""
        elif passage:
            passage += blank_lines
