"""The importance table: the statistics of every structure that the metrics are computed from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from adapruner.files import Artifact
from adapruner.importance.mapped_file import MappedFile, create_file
from adapruner.importance.terms import GRADIENT_GROUPS
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


class _Group(NamedTuple):
    """The parts of a group of statistics, whether they are of each sample, and by column."""

    parts: tuple[str, ...]
    of_samples: bool = False
    by_column: bool = False


_GROUPS = {
    "coarse": _Group(COARSE_PARTS, of_samples=True),
    "magnitude": _Group(KINDS, of_samples=True),
    "fisher": _Group(KINDS, of_samples=True),
    "token": _Group(INPUT_PARTS, of_samples=True),
    "element": _Group(KINDS),
    "mixed": _Group(KINDS),
    "input_sum": _Group(INPUT_PARTS, of_samples=True, by_column=True),
    "input_square": _Group(INPUT_PARTS, of_samples=True, by_column=True),
    "weight_square": _Group(KINDS),
    "column_mean": _Group(INPUT_PARTS, by_column=True),
    "column_square": _Group(INPUT_PARTS, by_column=True),
}
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

    A table may lack some of the `GRADIENT_GROUPS`; to read one that it lacks is a ValueError. With
    a `file`, the tensors are those of a file, which may be larger than the memory.
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
    file: MappedFile | None = None

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
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors().items()}
        copy = empty_table(shapes, self.reference, self.length, self.domain, directory)
        for mine, written in zip(self.tensors().values(), copy.tensors().values(), strict=True):
            written.copy_(mine)
            copy.release()
        self.write_summary(directory)

    def write_summary(self, directory: Path) -> None:
        """Writes the summary alone."""
        ImportanceSummary(
            samples=self.samples,
            sequence_length=self.length,
            layers=len(self.coarse["gate"]),
            reference=self.reference,
        ).write(directory)

    def release(self) -> None:
        """Takes the numbers of a table in a file out of the process's memory."""
        if self.file is not None:
            self.file.release()

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
        (length,) = tensors.pop("length").tolist()
        reference, domain = (tuple(tensors.pop(name).tolist()) for name in ("reference", "domain"))
        return cls.of(tensors, reference, length, domain)

    @classmethod
    def of(
        cls,
        tensors: dict[str, Tensor],
        reference: tuple[int, ...],
        length: int,
        domain: tuple[int, ...],
        file: MappedFile | None = None,
    ) -> Self:
        """The table of these `tensors()`."""
        groups: dict[str, dict[str, list[Tensor]]] = {}
        for name in sorted(tensors):
            group, part, _ = name.split(".")
            groups.setdefault(group, {}).setdefault(part, []).append(tensors[name])
        lacking = {group: Lacking(group) for group in GRADIENT_GROUPS if group not in groups}
        return cls(
            **groups, **lacking, reference=reference, length=length, domain=domain, file=file
        )


def empty_table(
    shapes: dict[str, tuple[int, ...]],
    reference: tuple[int, ...],
    length: int,
    domain: tuple[int, ...],
    directory: Path | None = None,
) -> ImportanceTable:
    """A table of zeros of these `table_shapes`, in memory or in its file in a `directory`."""
    if directory is None:
        tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
        return ImportanceTable.of(tensors, reference, length, domain)
    vectors = {"reference": [*reference], "length": [length], "domain": [*domain]}
    file = create_file(directory / ImportanceTable.FILE, shapes, vectors)
    tensors = {name: file.tensors[name] for name in shapes}
    return ImportanceTable.of(tensors, reference, length, domain, file)


def table_shapes(
    layers: tuple[LayerWidths, ...], head_dim: int, samples: int, groups: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of a table for a model of these layers.

    It has these `groups` of the GRADIENT_GROUPS, and all other statistics.
    """

    def units(widths: LayerWidths, part: str) -> int:
        return int(getattr(widths, _WIDTHS[UNITS.get(part, part)]))

    def columns(widths: LayerWidths, part: str) -> int:
        return widths.mlp_channels if part == "down" else widths.query_heads * head_dim

    shapes: dict[str, tuple[int, ...]] = {}
    for name, group in _GROUPS.items():
        if name in GRADIENT_GROUPS and name not in groups:
            continue
        size = columns if group.by_column else units
        for part, (index, widths) in product(group.parts, enumerate(layers)):
            shape = (size(widths, part),)
            shapes[f"{name}.{part}.{index:04d}"] = (samples, *shape) if group.of_samples else shape
    return shapes
