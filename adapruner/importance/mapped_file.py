"""A safetensors file that is filled through memory, without being held in memory."""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {torch.int64: "I64", torch.float32: "F32"}
"""Type of numbers -> its name in the file; in this order, all tensors are aligned."""


@dataclass(frozen=True)
class MappedFile:
    """Tensors whose memory is that of a file: what they are set to is written to it."""

    tensors: dict[str, Tensor]
    _pages: mmap.mmap

    def release(self) -> None:
        """Takes the pages out of the process's memory; they are read again when they are needed."""
        if hasattr(mmap, "MADV_DONTNEED"):  # Windows lacks it
            self._pages.madvise(mmap.MADV_DONTNEED)


def create_file(
    file: Path, shapes: Mapping[str, tuple[int, ...]], vectors: Mapping[str, list[int]]
) -> MappedFile:
    """A safetensors file of zeros in float32 of these shapes, and of vectors of int64.

    Another file of that name is replaced. Where the file system can, the space is reserved at once,
    so that a full disk is an OSError here and not a signal when a page is written.
    """
    kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]]
    kinds = {name: (torch.int64, (len(vectors[name]),)) for name in sorted(vectors)}
    kinds |= {name: (torch.float32, shapes[name]) for name in sorted(shapes)}
    header, places, end = {}, {}, 0
    for name, (dtype, shape) in kinds.items():
        places[name] = end
        end += dtype.itemsize * math.prod(shape)
        offsets = [places[name], end]
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    file.unlink(missing_ok=True)  # tensors of a file that is replaced stay what they are
    with file.open("w+b") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.flush()
        _allocate(opened.fileno(), start + end)
        pages = mmap.mmap(opened.fileno(), start + end)
    tensors = {name: _tensor(pages, start + places[name], *kind) for name, kind in kinds.items()}
    for name, values in vectors.items():
        tensors[name].copy_(torch.tensor(values, dtype=torch.int64))
    return MappedFile(tensors, pages)


def _tensor(pages: mmap.mmap, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape)
    if not count:  # no buffer can be empty
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(pages, dtype=dtype, count=count, offset=start).view(shape)


def _allocate(descriptor: int, size: int) -> None:
    os.truncate(descriptor, size)
    if hasattr(os, "posix_fallocate"):  # macOS and Windows lack it
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not every file system can
                raise
