"""The estimate of a run: as a table, and in a line before a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from adapruner.config import RunConfig
from adapruner.errors import UserError
from adapruner.estimation.estimate import Estimate, estimate
from adapruner.models.storage.checkpoint import read_config
from adapruner.models.storage.sources import source_config
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
    for line in filter(None, (_too_large(costs), *_lacks(costs))):
        console.print(line, markup=False)


def summary(config: RunConfig, home: Path) -> list[str]:
    """The whole costs of a run of which no stage is cached, and a line for what the machine lacks.

    Empty for a source whose config can't be read before the run, such as a registered model.
    Raises UserError where a stage that is not streamed can't hold its models.
    """
    try:
        model_config = source_config(config.model)
    except UserError:
        return []
    costs = estimate(config, model_config, config.model.source, home.absolute())
    if too_large := _too_large(costs):
        raise UserError(too_large)
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


def _too_large(costs: Estimate) -> str | None:
    """A line for stages whose models this machine can never hold, with the settings to change."""
    stages = [
        f"{stage} {format.size(models.weights)} (set {models.left_out_by})"
        for stage, models in costs.whole.items()
        if models.weights > costs.most
    ]
    if not stages:
        return None
    return (
        f"memory: this machine has {format.size(costs.most)}, and these stages can't be streamed "
        f"and need at least: {', '.join(stages)}"
    )


def _lacks(costs: Estimate) -> list[str]:
    """A line for each memory that is not available now, and for disk, with the setting to change.

    Stages that `_too_large` names are left out.
    """
    missing = {
        stage: f"memory: {stage} needs {format.size(cost.memory)}, {format.size(costs.memory)} are "
        "available"
        for stage, cost in costs.stages.items()
        if cost.memory > costs.memory
    }
    lines = [
        f"{missing[stage]}, and it can't be streamed: free some, or set {models.left_out_by}"
        for stage, models in costs.whole.items()
        if stage in missing and models.weights <= costs.most
    ]
    streamed = [stage for stage in missing if stage not in costs.whole]
    if streamed:
        largest = max(streamed, key=lambda stage: costs.stages[stage].memory)
        lines.append(
            f"{missing[largest]}: layers are streamed from disk, which takes longer, unless "
            "model.streaming is false; search.set_size and model.dtype lower it"
        )
    _, _, disk = _total(costs)
    if disk > costs.disk:
        lines.append(
            f"disk: the artifacts need {format.size(disk)}, {format.size(costs.disk)} are free: "
            "set --home to a larger disk, or lower calibration.clusters or the number of sources"
        )
    return lines
