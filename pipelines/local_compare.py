"""One comparison on the local stack, from a validated file to the table at its end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from adapruner.comparison.cells import ComparisonConfig, cells
from adapruner.config import RunConfig
from pipelines.local_run import execute, prepare


def compare(
    values: dict[str, Any], config: RunConfig, comparison: ComparisonConfig, home: Path
) -> None:
    """Run the pipeline with the file content `values`, which spells the other arguments.

    Raises what a step raised: UserError for what the user gave.
    """
    console = Console(soft_wrap=True, highlight=False)
    started = time.perf_counter()
    target = Path(config.output_dir, config.name)
    all_cells = cells(config, comparison)
    shown = {name: len({getattr(c, name) for c in all_cells}) for name in ("method", "ratio")}
    console.print(
        f"Compare {shown['method']} methods at {shown['ratio']} ratios on {config.model.source}: "
        f"{len(all_cells)} candidates, each cut and measured"
        f"{' and fine-tuned' if comparison.finetune else ''}; a searched one runs "
        f"{config.search.trials} trials.\n"
        f"What is unchanged since an earlier run is not computed again.\n"
        f"Stores: {home.absolute()}  Results: {target}/",
        markup=False,
    )
    prepare(home)
    execute("compare", values)
    from adapruner.comparison.table import tables

    content = json.loads((target / "comparison.json").read_text(encoding="utf-8"))
    for table in tables(content):
        console.print(table)
    for name in ("comparison.md", "comparison.json", "comparison.svg", "comparison.png"):
        console.print(f"  {target / name}", markup=False)
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", markup=False)
