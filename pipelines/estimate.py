"""The estimate of a run: as a table, and in a line before a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from adapruner.config import RunConfig
from adapruner.errors import UserError
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


def summary(config: RunConfig, home: Path) -> list[str]:
    """The whole costs of a run of which no stage is cached, and a line for what the machine lacks.

    Empty for a source whose config can't be read before the run, such as a registered model.
    """
    try:
        model_config = source_config(config.model)
    except UserError:
        return []
    costs = estimate(config, model_config, config.model.source, home.absolute())
    seconds, memory, disk = _total(costs)
    return [
        f"Without cached steps it takes about {format.duration(seconds)}, {format.size(memory)} of "
        f"memory and {format.size(disk)} of disk; `adapruner estimate` shows the stages.",
        *_lacks(costs),
    ]


def _total(costs: Estimate) -> tuple[float, int, int]:
    """Seconds of all stages, bytes in memory at once, and bytes on disk of all stages."""
    stages = costs.stages.values()
    return (
        sum(cost.seconds for cost in stages),
        max(cost.memory for cost in stages),
        sum(cost.disk for cost in stages),
    )


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
    seconds, memory, disk = _total(costs)
    table.add_section()
    table.add_row(
        "all", format.duration(seconds), f"{format.size(memory)} at once", format.size(disk)
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
    _, _, disk = _total(costs)
    if disk > costs.disk:
        lines.append(
            f"disk: the artifacts need {format.size(disk)}, {format.size(costs.disk)} are free: "
            "set --home to a larger disk, or lower calibration.clusters or the number of sources"
        )
    return lines
