"""Prints the estimate of a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from adapruner.config import RunConfig
from adapruner.estimation.estimate import Estimate, estimate
from adapruner.models.checkpoint import read_config
from adapruner.models.sources import source_config
from adapruner.report import format


def show(config: RunConfig, home: Path, model: Path | None) -> None:
    """Prints the costs of the stages of `config`, with the model of a config in `model` or of the
    run's source, and a line for what the machine lacks."""
    where = str(model or config.model.source)
    model_config = read_config(model) if model else source_config(config.model)
    costs = estimate(config, model_config, where, home.absolute())
    console = Console(soft_wrap=True, highlight=False)
    structures = costs.structures
    console.print(
        f"{where}: {format.count(structures.total_params)} parameters in "
        f"{len(structures.layers)} layers, {costs.dtype}",
        markup=False,
    )
    console.print(_table(costs))
    for line in _lacks(costs):
        console.print(line, markup=False)


def _table(costs: Estimate) -> Table:
    table = Table("stage", *(Column(name, justify="right") for name in ("time", "memory", "disk")))
    stages = {name: cost for name, cost in costs.stages.items() if any(cost)}
    for name, cost in stages.items():
        table.add_row(
            name,
            format.duration(cost.seconds),
            format.size(cost.memory) if cost.memory else "",
            format.size(cost.disk) if cost.disk else "",
        )
    table.add_section()
    table.add_row(
        "all",
        format.duration(sum(cost.seconds for cost in stages.values())),
        f"{format.size(max(cost.memory for cost in stages.values()))} at once",
        format.size(sum(cost.disk for cost in stages.values())),
    )
    return table


def _lacks(costs: Estimate) -> list[str]:
    """A line for memory and for disk that the machine lacks, with the setting to change."""
    lines = []
    stage, cost = max(costs.stages.items(), key=lambda item: item[1].memory)
    if cost.memory > costs.memory:
        lines.append(
            f"memory: {stage} needs {format.size(cost.memory)}, {format.size(costs.memory)} are "
            "available: layers are streamed from disk, which takes longer; model.streaming, "
            "finetune.recompute, finetune.batch_size and search.set_size change it"
        )
    disk = sum(cost.disk for cost in costs.stages.values())
    if disk > costs.disk:
        lines.append(
            f"disk: the artifacts need {format.size(disk)}, {format.size(costs.disk)} are free: "
            "set --home to a larger disk, or lower calibration.clusters or the number of sources"
        )
    return lines
