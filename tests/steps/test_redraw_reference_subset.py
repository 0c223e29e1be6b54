from __future__ import annotations

from pathlib import Path

import torch

from adapruner.importance.table import ImportanceTable
from adapruner.importance.terms import GRADIENT_GROUPS
from steps.estimate_importance import estimate_importance
from steps.redraw_reference_subset import redraw_reference_subset
from tests.adapruner.conftest import Workplace


def test_a_redrawn_table_equals_the_table_that_is_estimated_with_that_seed(
    workplace: Workplace, stages_folder: Path
) -> None:
    checkpoint, pool, model = workplace.checkpoint, workplace.pool, workplace.model
    first, expected = (
        estimate_importance.entrypoint(
            checkpoint, pool, model, reference_size=4, seed=seed, groups=GRADIENT_GROUPS
        )
        for seed in (0, 5)
    )
    redrawn = redraw_reference_subset.entrypoint(checkpoint, pool, first, model, seed=5)
    tables = [ImportanceTable.read(directory) for directory in (redrawn, expected)]
    assert tables[0].reference == tables[1].reference != ImportanceTable.read(first).reference
    for name, tensors in tables[0].element.items():
        for one, other in zip(tensors, tables[1].element[name], strict=True):
            torch.testing.assert_close(one, other)
