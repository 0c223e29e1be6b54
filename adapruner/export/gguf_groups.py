"""Q4_1 of weights that were trained in 4 bit: their own codes, steps and minima, nothing rounded.

A block of Q4_1 is d and m in float16, then 16 bytes of codes in the order of `models.groups`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapruner.models.groups import read_groups

Bytes = NDArray[np.uint8]


def stored_blocks(file: Path, source: str, rows: slice, order: NDArray[np.int64]) -> Bytes | None:
    """The rows of the weight `source` as Q4_1, in the order `order` of them, uint8 [rows, bytes].

    None for a weight that the file does not have. A group of several blocks repeats d and m.
    """
    groups = read_groups(file, (source,)).get(source)
    if groups is None:
        return None
    codes = groups.codes[rows].numpy()
    repeats = codes.shape[1] // groups.step.shape[1]
    halves = (
        np.repeat(part[rows].numpy(), repeats, axis=1)[..., None].view(np.uint8)
        for part in (groups.step, groups.minimum)
    )
    blocks = np.concatenate((*halves, codes), axis=-1)
    return blocks.reshape(len(blocks), -1)[order]
