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

REMEDIES = {
    False: "layers are streamed from disk, which takes longer; model.streaming and search.set_size "
    "change it",
    True: "finetune.recompute, finetune.batch_size and evaluation.batch_sizes change it",
}
"""Whether a stage needs whole models -> what happens or helps where it lacks memory."""


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
    """A line for stages whose models can't be in memory, with the settings to change."""
    stages = [
        f"{stage} {format.size(models.weights)} ({models.avoided_by})"
        for stage, models in costs.whole.items()
        if models.weights > costs.memory
    ]
    if not stages:
        return None
    return (
        f"memory: {format.size(costs.memory)} are available, and stages that can't be streamed "
        f"need for their weights: {', '.join(stages)}; change the settings in brackets"
    )


def _lacks(costs: Estimate) -> list[str]:
    """A line for memory and for disk that the machine lacks, with the setting to change."""
    lines = []
    for is_whole, remedy in REMEDIES.items():
        stages = {
            name: c.memory for name, c in costs.stages.items() if (name in costs.whole) == is_whole
        }
        stage = max(stages, key=stages.__getitem__, default="")
        if stages.get(stage, 0) > costs.memory:
            lines.append(
                f"memory: {stage} needs {format.size(stages[stage])}, {format.size(costs.memory)} "
                f"are available: {remedy}"
            )
    _, _, disk = _total(costs)
    if disk > costs.disk:
        lines.append(
            f"disk: the artifacts need {format.size(disk)}, {format.size(costs.disk)} are free: "
            "set --home to a larger disk, or lower calibration.clusters or the number of sources"
        )
    return lines
