"""The files of a calibration pool: the token splits, fine-tuning rows, test texts and the summary.

This module alone knows their format; all other code reads and writes them through it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.files import Artifact

FINETUNE_FILE = "finetune.jsonl"


@dataclass(frozen=True, eq=False)
class Pool:
    """The token splits, int32, with T tokens per sample.

    `calibration` [N, T] are the samples of the calibration pool; `update` [U, T] are these samples
    and more of their split, which cut layers are updated on, and `domain` [U] the index of each
    sample's domain in `PoolSummary.domains`; `objective` [M, T] and `held_out`
    [H, T] are the windows of the search's objective and of the held-out text.
    """

    FILE: ClassVar[str] = "pool.safetensors"

    calibration: Tensor
    update: Tensor
    domain: Tensor
    objective: Tensor
    held_out: Tensor

    @property
    def calibration_domain(self) -> tuple[int, ...]:
        """The domain of each sample of the calibration pool."""
        return tuple(self.domain[: len(self.calibration)].tolist())

    def write(self, directory: Path) -> None:
        """Writes `FILE` in `directory`, which exists."""
        save_file(vars(self), directory / self.FILE)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The token splits of the pool in `directory`."""
        return cls(**load_file(directory / cls.FILE))


class TestTexts(Artifact):
    """The test texts by name."""

    __test__ = False  # pytest would collect the class for its name
    FILE: ClassVar[str] = "test.json"

    texts: dict[str, str]


class SourceSummary(BaseModel):
    """Counts of the records of one source: read = too_short + duplicate + kept.

    `used` counts the samples of the calibration pool; None for sources of other settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    uri: str
    content_hash: str
    read: int
    too_short: int
    duplicate: int
    kept: int
    used: int | None = None


class SplitSummary(BaseModel):
    """Size and content of one split.

    `used` of `available` samples (fine-tuning: rows; test: texts) were drawn; they come from
    `documents` documents and have `tokens` tokens in total.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    available: int
    documents: int
    used: int
    tokens: int
    sha256: str


class DomainSummary(BaseModel):
    """A domain: its name, and how many samples of the splits calibration and update belong to it.

    The name is the source's URI; of a cluster, its number and a few of its characteristic words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    calibration: int
    update: int


class TokenizerSummary(BaseModel):
    """The properties of a tokenizer that the samples depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    vocabulary: int
    begins_with_bos: bool


class PoolSummary(Artifact):
    """How a pool was built: settings, tokenizer, and the sizes of sources, domains and splits."""

    FILE: ClassVar[str] = "pool.json"

    seed: int
    min_tokens: int
    sequence_length: int
    tokenizer: TokenizerSummary
    sources: list[SourceSummary]
    domains: list[DomainSummary]
    splits: dict[str, SplitSummary]


def write_finetune_rows(directory: Path, rows: Iterable[dict[str, str]]) -> None:
    """Writes the fine-tuning rows, one per line: {"text"} or {"instruction", "input", "output"}.

    Rows of several sources of calibration.source are {"text", "domain"}, with the index of the
    domain in `PoolSummary.domains` as digits.
    """
    (directory / FINETUNE_FILE).write_text(finetune_lines(rows), encoding="utf-8")


def read_finetune_rows(directory: Path) -> list[dict[str, str]]:
    """The fine-tuning rows of the pool in `directory`, in their seeded order."""
    # Texts may hold other line separators of Unicode; only a line feed ends a row.
    with (directory / FINETUNE_FILE).open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def row_text(row: Mapping[str, str]) -> str:
    """The texts of a fine-tuning row, joined by line feeds; its domain is none."""
    return "\n".join(text for field, text in row.items() if field != "domain")


def finetune_lines(rows: Iterable[dict[str, str]]) -> str:
    """The content of the file with these fine-tuning rows."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
