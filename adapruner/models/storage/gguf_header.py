"""The header of a GGUF file, walked before any library reads it.

Readers allocate what a header announces. Here each count is compared with the bytes that are left
in the file, so that a small file can't ask for more memory than it has bytes.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from adapruner.errors import UserError

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Number of a type of value -> its size in bytes, by the format's specification (gguf.md)."""

STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 8
MOST_DEPTH = 4


class _Walk:
    """A position in the bytes of a file; every step is checked against its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def skip(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise ValueError("it ends within its header")
        self._at += size

    def number(self, form: str) -> int:
        start, size = self._at, struct.calcsize(form)
        self.skip(size)
        return int(struct.unpack_from(f"<{form}", self._data, start)[0])

    def count(self, least: int) -> int:
        """A number of things of at least `least` bytes each."""
        number = self.number("Q")
        if number * least > len(self._data) - self._at:
            raise ValueError(f"its header counts {number} values, more than its bytes")
        return number

    def string(self) -> None:
        self.skip(self.count(1))

    def value(self, kind: int, depth: int = 0) -> None:
        if kind in SIZES:
            self.skip(SIZES[kind])
        elif kind == STRING:
            self.string()
        elif kind == ARRAY and depth < MOST_DEPTH:
            self._array(depth)
        else:
            raise ValueError(f"its header has a value of the unknown type {kind}")

    def _array(self, depth: int) -> None:
        kind = self.number("I")
        if kind in SIZES:
            self.skip(SIZES[kind] * self.count(SIZES[kind]))
            return
        for _ in range(self.count(8)):
            self.value(kind, depth + 1)

    def tensor(self) -> None:
        self.string()
        dimensions = self.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError(f"its header has a tensor of {dimensions} dimensions")
        self.skip(8 * dimensions + 4 + 8)


def check_header(file: Path) -> None:
    """Raises UserError unless the header of a GGUF file (version 2 or 3) is consistent."""
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as data:
            walk = _Walk(data)
            if data[:4] != b"GGUF":
                raise ValueError("it does not begin with GGUF")
            walk.skip(4)
            if (version := walk.number("I")) not in (2, 3):
                raise ValueError(f"its version is {version}")
            tensors, fields = walk.count(8 + 4 + 4 + 8), walk.count(8 + 4 + 1)
            for _ in range(fields):
                walk.string()
                walk.value(walk.number("I"))
            for _ in range(tensors):
                walk.tensor()
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' is not a readable GGUF model: {error}") from None
