"""The importance table: the statistics of every structure that the metrics are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.files import Artifact
from adapruner.models.structures import LayerWidths

KINDS = ("mlp", "heads", "groups")
"""Kinds of structures: MLP channels, query heads, KV groups."""

UNITS = {
    "gate": "mlp", "up": "mlp", "down": "mlp",
    "query": "heads", "output": "heads", "key": "groups", "value": "groups",
}  # fmt: skip
"""Projection -> the kind of structure that its rows (of down and output: its columns) belong to."""

COARSE_PARTS = ("gate", "down", "query", "output")
INPUT_PARTS = ("down", "output")

_GROUPS = ("coarse", "magnitude", "fisher", "token", "element", "mixed", "input_sum",
           "input_square", "weight_square", "column_mean", "column_square")  # fmt: skip
_WIDTHS = {"mlp": "mlp_channels", "heads": "query_heads", "groups": "kv_groups"}


class ImportanceSummary(Artifact):
    """The size of an importance table."""

    FILE: ClassVar[str] = "importance.json"

    samples: int
    sequence_length: int
    layers: int
    reference: tuple[int, ...]


@dataclass(frozen=True)
class ImportanceTable:
    """Statistics of every structure of every layer. All tensors are float32.

    `coarse[part][layer]` is [N, units] for the parts gate, down (units: channels), query and
    output (units: query heads); `magnitude[kind][layer]` and `fisher[kind][layer]` are [N, units]
    for the kinds mlp, heads and groups; `token[part][layer]` is [N, units] for the parts down and
    output; `element[kind][layer]` and `mixed[kind][layer]` are [units]; `reference` lists the
    samples of the reference subset, `domain` the index of each sample's domain.

    `input_sum[part][layer]` and `input_square[part][layer]` are [N, columns] for the parts down
    and output, each summed over the `length` tokens of a sample. Of the weights alone:
    `weight_square[kind][layer]` [units], the sum of squares of all coupled weights, and for the
    parts down and output `column_mean[part][layer]` and `column_square[part][layer]` [columns],
    the mean magnitude and the sum of squares of a column.
    """

    FILE: ClassVar[str] = "importance.safetensors"

    coarse: dict[str, list[Tensor]]
    magnitude: dict[str, list[Tensor]]
    fisher: dict[str, list[Tensor]]
    token: dict[str, list[Tensor]]
    element: dict[str, list[Tensor]]
    mixed: dict[str, list[Tensor]]
    input_sum: dict[str, list[Tensor]]
    input_square: dict[str, list[Tensor]]
    weight_square: dict[str, list[Tensor]]
    column_mean: dict[str, list[Tensor]]
    column_square: dict[str, list[Tensor]]
    reference: tuple[int, ...]
    length: int
    domain: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.coarse["gate"][0])

    @property
    def domains(self) -> int:
        """Number of domains that the samples come from."""
        return max(self.domain) + 1

    def write(self, directory: Path) -> None:
        """Writes the table and its summary to `directory`, which exists."""
        fields = ("reference", "length", "domain")
        scalars = {name: torch.tensor(getattr(self, name)) for name in fields}
        save_file(self.tensors() | scalars, directory / self.FILE)
        ImportanceSummary(
            samples=self.samples,
            sequence_length=self.length,
            layers=len(self.coarse["gate"]),
            reference=self.reference,
        ).write(directory)

    def tensors(self) -> dict[str, Tensor]:
        """Name -> statistic of one layer."""
        return {
            f"{group}.{part}.{index:04d}": tensor
            for group in _GROUPS
            for part, layers in getattr(self, group).items()
            for index, tensor in enumerate(layers)
        }

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The table that `write` left in `directory`."""
        tensors = load_file(directory / cls.FILE)
        length = int(tensors.pop("length"))
        reference, domain = (tuple(tensors.pop(name).tolist()) for name in ("reference", "domain"))
        groups: dict[str, dict[str, list[Tensor]]] = {}
        for name in sorted(tensors):
            group, part, _ = name.split(".")
            groups.setdefault(group, {}).setdefault(part, []).append(tensors[name])
        return cls(**groups, reference=reference, length=length, domain=domain)


def empty_table(
    layers: tuple[LayerWidths, ...], head_dim: int, tokens: Tensor, reference: tuple[int, ...]
) -> ImportanceTable:
    """A table of zeros for a model of these layers and the samples `tokens`, int [N, T].

    All samples count as those of one domain.
    """
    samples, length = tokens.shape

    def zeros(parts: tuple[str, ...], *shape: int, size: Any = None) -> dict[str, list[Tensor]]:
        return {
            part: [torch.zeros(*shape, (size or units)(widths, part)) for widths in layers]
            for part in parts
        }

    def units(widths: LayerWidths, part: str) -> int:
        return int(getattr(widths, _WIDTHS[UNITS.get(part, part)]))

    def columns(widths: LayerWidths, part: str) -> int:
        return widths.mlp_channels if part == "down" else widths.query_heads * head_dim

    return ImportanceTable(
        coarse=zeros(COARSE_PARTS, samples),
        magnitude=zeros(KINDS, samples),
        fisher=zeros(KINDS, samples),
        token=zeros(INPUT_PARTS, samples),
        element=zeros(KINDS),
        mixed=zeros(KINDS),
        input_sum=zeros(INPUT_PARTS, samples, size=columns),
        input_square=zeros(INPUT_PARTS, samples, size=columns),
        weight_square=zeros(KINDS),
        column_mean=zeros(INPUT_PARTS, size=columns),
        column_square=zeros(INPUT_PARTS, size=columns),
        reference=reference,
        length=length,
        domain=(0,) * samples,
    )
