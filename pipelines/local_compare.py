"""One comparison on the local stack, from a validated file to the tables of its results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from adapruner.comparison.cells import ComparisonConfig, cells
from adapruner.config import RunConfig
from pipelines.local_run import execute, prepare, print_tables


def compare(
    values: dict[str, Any], config: RunConfig, comparison: ComparisonConfig, home: Path
) -> None:
    """Runs a comparison; prints what it will do, then the results.

    `values` is the content of the file that holds `config` and `comparison`. Raises what a step
    raised: UserError for invalid input.
    """
    from adapruner.models.storage.sources import check_source  # it imports torch

    check_source(config.model)
    console = Console(soft_wrap=True, highlight=False)
    started = time.perf_counter()
    target = Path(config.output_dir, config.name)
    candidates = cells(config, comparison)
    methods = len({cell.method for cell in candidates})
    ratios = len({cell.ratio for cell in candidates})
    console.print(
        f"Compare {methods} methods at {ratios} ratios on {config.model.source}: "
        f"{len(candidates)} candidates, each pruned"
        f"{', fine-tuned' if comparison.finetune else ''} and evaluated; a method with a search "
        f"runs {config.search.trials} trials.\n"
        f"Steps that are unchanged since an earlier run are not repeated.\n"
        f"Stores: {home.absolute()}  Results: {target}/",
        markup=False,
    )
    prepare(home)
    execute("compare", values)
    print_tables(console, target)
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", markup=False)
