"""A small pool of random tokens."""

from __future__ import annotations

from pathlib import Path

import torch

from adapruner.data.pool import Pool
from tests.models import tokens


def write_pool(directory: Path) -> Pool:
    """Writes the tensors of a pool to `directory`, which exists."""
    calibration = tokens(11, 16)
    pool = Pool(
        calibration=calibration,
        domain=torch.zeros(40, dtype=torch.int32),
        update=torch.cat([calibration, tokens(29, 16, seed=3)]),
        objective=tokens(6, 16, seed=1),
        held_out=tokens(6, 16, seed=2),
    )
    pool.write(directory)
    return pool
