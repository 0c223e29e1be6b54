"""The tensors in a checkpoint's weight files, read by name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from adapruner.errors import UserError
from adapruner.models.weights import DTYPES, tensor_entries, weight_files


class _Place(NamedTuple):
    file: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class TensorFiles:
    """The tensors of a checkpoint.

    Files are read, not mapped: pages of a mapped file count as memory of the process.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Reads the headers. Raises UserError for a data type that models don't have."""
        self._places: dict[str, _Place] = {}
        for file in weight_files(checkpoint):
            for name, (start, dtype, shape) in tensor_entries(file).items():
                if dtype not in DTYPES:
                    raise UserError(f"'{file}': '{name}' has the data type {dtype}; convert it")
                self._places[name] = _Place(file, start, DTYPES[dtype], shape)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def read(self, name: str) -> Tensor:
        """The tensor on the CPU, in its stored data type. Raises UserError for a short file."""
        place = self._places[name]
        tensor = torch.empty(place.shape, dtype=place.dtype)
        target = tensor.view(-1).view(torch.uint8).numpy()
        with place.file.open("rb", buffering=0) as file:
            file.seek(place.start)
            done = 0
            while done < len(target):  # one call reads 2 GiB at most
                count = file.readinto(target[done:].data)
                if not count:
                    raise UserError(f"'{place.file}' is truncated at '{name}'; fetch it again")
                done += count
        return tensor
