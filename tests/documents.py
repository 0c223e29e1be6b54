"""The documents of the project, and what is in their code blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced code block and the heading that it is below."""

    language: str
    text: str
    heading: str


def blocks(document: Path, *languages: str) -> list[Block]:
    """The code blocks of these languages, in their order."""
    result, heading = [], ""
    parts = re.finditer(
        r"^```(?P<language>\w*)\n(?P<text>.*?)^```$|^#+ (?P<heading>[^\n]+)$",
        document.read_text(encoding="utf-8"),
        re.M | re.S,
    )
    for part in parts:
        heading = part["heading"] or heading
        if part["language"] in languages:
            result.append(Block(part["language"], part["text"], heading))
    return result


def commands(document: Path) -> Iterator[list[str]]:
    """Every command of a document's shell blocks, without settings of environment variables."""
    for block in blocks(document, "sh"):
        for line in block.text.splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words.pop(0)
                if words:
                    yield words


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
