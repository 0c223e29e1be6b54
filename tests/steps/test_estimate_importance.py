from __future__ import annotations

from pathlib import Path

from adapruner.data.pool import Pool
from adapruner.importance.statistics import reference_subset
from adapruner.importance.table import ImportanceTable
from steps.estimate_importance import estimate_importance
from tests.adapruner.conftest import Workplace


def test_the_table_is_of_all_samples_with_the_reference_subset_of_the_seed(
    workplace: Workplace, stages_folder: Path
) -> None:
    pool = Pool.read(workplace.pool)
    out = estimate_importance.entrypoint(
        workplace.checkpoint,
        workplace.pool,
        workplace.model,
        reference_size=4,
        seed=3,
        groups=("fisher", "mixed"),
    )
    table = ImportanceTable.read(out)
    assert table.samples == len(pool.calibration)
    assert table.domain == pool.calibration_domain
    assert list(table.reference) == reference_subset(len(pool.calibration), 4, 3)
    assert table.fisher and table.mixed and not table.magnitude and not table.element
