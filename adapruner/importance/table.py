"""The importance table: the statistics of every structure that the metrics are computed from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.files import Artifact
from adapruner.importance.terms import GRADIENT_GROUPS, REFERENCE_GROUPS
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


class Lacking(dict[str, Any]):
    """A group of statistics that a table does not have."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self.group = group

    def __missing__(self, part: str) -> NoReturn:
        raise ValueError(
            f"the importance table has no statistic {self.group}: name it in the statistics of "
            "the metric that reads it"
        )


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

    A table may lack some of the `GRADIENT_GROUPS`; to read one that it lacks is a ValueError.
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

    def units(self, kind: str) -> list[int]:
        """Number of structures of a kind, by layer."""
        return [len(layer) for layer in self.weight_square[kind]]

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
        lacking = {group: Lacking(group) for group in GRADIENT_GROUPS if group not in groups}
        return cls(**groups, **lacking, reference=reference, length=length, domain=domain)


def empty_table(
    layers: tuple[LayerWidths, ...],
    head_dim: int,
    tokens: Tensor,
    reference: tuple[int, ...],
    groups: Collection[str],
) -> ImportanceTable:
    """A table of zeros for a model of these layers and the samples `tokens`, int [N, T].

    It has these `groups` of the GRADIENT_GROUPS, and all other statistics. All samples count as
    those of one domain.
    """
    samples, length = tokens.shape

    def zeros(parts: tuple[str, ...], *shape: int, size: Any = None) -> dict[str, list[Tensor]]:
        return {
            part: [torch.zeros(*shape, (size or units)(widths, part)) for widths in layers]
            for part in parts
        }

    def units(widths: LayerWidths, part: str) -> int:
        return int(getattr(widths, _WIDTHS[UNITS.get(part, part)]))

    def of_gradients(group: str) -> dict[str, list[Tensor]]:
        if group not in groups:
            return Lacking(group)
        return zeros(KINDS) if group in REFERENCE_GROUPS else zeros(KINDS, samples)

    def columns(widths: LayerWidths, part: str) -> int:
        return widths.mlp_channels if part == "down" else widths.query_heads * head_dim

    return ImportanceTable(
        coarse=zeros(COARSE_PARTS, samples),
        **{group: of_gradients(group) for group in GRADIENT_GROUPS},
        token=zeros(INPUT_PARTS, samples),
        input_sum=zeros(INPUT_PARTS, samples, size=columns),
        input_square=zeros(INPUT_PARTS, samples, size=columns),
        weight_square=zeros(KINDS),
        column_mean=zeros(INPUT_PARTS, size=columns),
        column_square=zeros(INPUT_PARTS, size=columns),
        reference=reference,
        length=length,
        domain=(0,) * samples,
    )
