"""The table of a comparison: as JSON, as Markdown and for a terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from adapruner.comparison.candidate import STAGE_SECONDS, CandidateResult
from adapruner.comparison.cells import Cell, ComparisonConfig, cells
from adapruner.config import RunConfig
from adapruner.config.pruning import RATIO_BASES
from adapruner.files import read_json
from adapruner.report.format import PERPLEXITY, count, duration, number

FILE = "comparison.json"
UNREACHABLE = "not reachable"


def build(
    config: RunConfig,
    comparison: ComparisonConfig,
    dense: Mapping[str, float],
    candidates: Sequence[Path],
    shared_s: Mapping[str, float],
) -> dict[str, Any]:
    """comparison.json: a row for each method, ratio and layout, the best of a layout first.

    `candidates` are the directories of `measure_candidate` in the order of `cells`; `dense` the
    dense model's metrics; `shared_s` the seconds of the shared stages. In a row, each metric of the
    pruned and of the fine-tuned model has the mean over the seeds, the sample standard deviation
    (`spread`, null for one seed), the extremes, and `to_dense`, the mean divided by the dense
    model's value. Numbers that are not finite are null.
    """
    rows: dict[tuple[float, str, str], list[Any]] = {}
    for cell, directory in zip(cells(config, comparison), candidates, strict=True):
        rows.setdefault((cell.ratio, cell.layout, cell.method), []).append((cell, directory))
    panels: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for (ratio, layout, _), members in rows.items():
        panels.setdefault((ratio, layout), []).append(_row(members, dense))
    return {
        "name": config.name,
        "source": config.model.source,
        "ratio_of": config.pruning.ratio_of,
        "finetuned": comparison.finetune,
        "dense": dict(dense),
        "shared_s": dict(shared_s),
        "rows": [row for panel in panels.values() for row in sorted(panel, key=_rank)],
        "config": config.model_dump(mode="json"),
        "comparison": comparison.model_dump(mode="json"),
    }


def final(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The metrics of a row's final model: fine-tuned where there is one, else pruned."""
    metrics: Mapping[str, Any] | None = row["finetuned"] or row["pruned"]
    return metrics


def panels(content: Mapping[str, Any]) -> dict[tuple[float, str], list[Mapping[str, Any]]]:
    """(ratio, layout) -> its rows, the best first."""
    by_panel: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for row in content["rows"]:
        by_panel.setdefault((row["ratio"], row["layout"]), []).append(row)
    return by_panel


def heading(content: Mapping[str, Any], ratio: float, layout: str) -> str:
    """The title of the panel of a ratio and a layout."""
    if all(row.get("zeros") for row in panels(content)[ratio, layout]):
        return "no parameters removed, 2 of 4 weights of every projection zero"
    return f"{100 * ratio:g} % of {RATIO_BASES[content['ratio_of']]} removed, layout {layout}"


def markdown(content: Mapping[str, Any]) -> str:
    """The content of comparison.md."""
    shown = ", ".join(f"{name} {number(value)}" for name, value in content["dense"].items())
    lines = [
        f"# Comparison: {content['name']}", "",
        f"`{content['source']}`, dense: {shown}. `x dense` is the value divided by the dense "
        "model's; ± is the standard deviation over the seeds of a random method.", "",
    ]  # fmt: skip
    for (ratio, layout), rows in panels(content).items():
        columns = _columns(content)
        lines += [f"## {heading(content, ratio, layout)}", "", _line(columns)]
        lines += [_line(["---"] + ["---:"] * (len(columns) - 1))]
        lines += [_line(_cells_of(row, content)) for row in rows]
        lines += [""]
        reasons = {row["reason"] for row in rows if row["reason"]}
        lines += [f"{UNREACHABLE}: {reason}\n" for reason in sorted(reasons)]
        lines += [f"{line}\n" for line in sparse_notes(rows)]
    shared = ", ".join(f"{name} {duration(s)}" for name, s in content["shared_s"].items())
    return "\n".join([*lines, f"Computed once for all of them: {shared}.", ""])


def sparse_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each method that removes no parameters."""
    return [
        f"{row['method']} removes no parameters: {count(row['zeros'])} of them are zero, 2 of each "
        "4 in the projections; only GPUs with sparse tensor cores gain"
        for row in rows
        if row.get("zeros")
    ]


def tables(content: Mapping[str, Any]) -> list[Table]:
    """For a terminal, a table for each ratio and layout, with ratios to the dense model."""
    result = []
    for (ratio, layout), rows in panels(content).items():
        table = Table(
            title=heading(content, ratio, layout),
            caption="\n".join(
                ["x dense: the value divided by the dense model's", *sparse_notes(rows)]
            ),
            title_style="bold",
        )
        names = [name.partition("_ppl_")[0] for name in content["dense"]]
        table.add_column("method", no_wrap=True)
        for column in ("seeds", *(f"{name}\nx dense" for name in names), *_costs(content)):
            table.add_column(column, justify="right")
        for row in rows:
            measured = final(row)
            factors = [
                UNREACHABLE if measured is None else number(measured[name]["to_dense"])
                for name in content["dense"]
            ]
            table.add_row(row["method"], str(len(row["seeds"])), *factors, *_spent(row, content))
        result.append(table)
    return result


def _row(members: Sequence[tuple[Cell, Path]], dense: Mapping[str, float]) -> dict[str, Any]:
    cell = members[0][0]
    results = [CandidateResult.read(directory) for _, directory in members]
    seconds = [read_json(directory / STAGE_SECONDS) for _, directory in members]
    reason = next((result.reason for result in results if result.reason is not None), None)
    measured: dict[str, Any] = {"pruned": None, "finetuned": None, "params": None, "zeros": 0}
    if reason is None:
        fields = ("params", "achieved", "achieved_all", "achieved_blocks", "zeros")
        measured |= {f: statistics.mean(getattr(r, f) for r in results) for f in fields}
        for model in ("pruned", "finetuned"):
            measured[model] = _statistics([getattr(r, model) for r in results], dense)
    stages = sorted({stage for by_stage in seconds for stage in by_stage})
    return {
        "method": cell.method,
        "ratio": cell.ratio,
        "layout": cell.layout,
        "seeds": [c.seed for c, _ in members],
        "reason": reason,
        **measured,
        "seconds": {s: statistics.mean(each.get(s, 0.0) for each in seconds) for s in stages},
    }


def _statistics(
    metrics: Sequence[Mapping[str, float] | None], dense: Mapping[str, float]
) -> dict[str, Any] | None:
    """Metric -> its statistics over the seeds; None where the model was not measured."""
    measured = [values for values in metrics if values is not None]
    if not measured:
        return None
    return {name: _stat([values[name] for values in measured], dense[name]) for name in measured[0]}


def _stat(values: Sequence[float], dense: float) -> dict[str, float | None]:
    if not all(map(math.isfinite, values)):
        return dict.fromkeys(("mean", "spread", "min", "max", "to_dense"))
    mean = statistics.mean(values)
    return {
        "mean": mean,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "to_dense": mean / dense if dense and math.isfinite(dense) else None,
    }


def _rank(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Reachable rows first; of these the lowest geometric mean of the perplexity ratios."""
    measured = final(row)
    if measured is None:
        return (True, 0.0)
    factors = [stat["to_dense"] for name, stat in measured.items() if PERPLEXITY.match(name)]
    if None in factors or not factors:
        return (False, math.inf)
    return (False, statistics.mean(map(math.log, factors)))


def _columns(content: Mapping[str, Any]) -> list[str]:
    tuned = ["x dense, fine-tuned"] if content["finetuned"] else []
    texts = [column for name in content["dense"] for column in (name, "x dense", *tuned)]
    return ["method", "seeds", *texts, *_costs(content)]


def _costs(content: Mapping[str, Any]) -> list[str]:
    return ["parameters", "decide", "cut", *(["fine-tune"] if content["finetuned"] else [])]


def _cells_of(row: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    shown = [row["method"], str(len(row["seeds"]))]
    if row["reason"] is not None:
        return shown + [UNREACHABLE] + ["-"] * (len(_columns(content)) - len(shown) - 1)
    for name in content["dense"]:
        stat = row["pruned"][name]
        spread = "" if stat["spread"] is None else f" ± {number(stat['spread'])}"
        shown += [number(stat["mean"]) + spread, number(stat["to_dense"])]
        if content["finetuned"]:
            shown.append(number(row["finetuned"][name]["to_dense"]))
    return [*shown, *_spent(row, content)]


def _spent(row: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    """Parameters left and seconds by stage, in the columns of `_costs`."""
    if row["reason"] is not None:
        return ["-"] * len(_costs(content))
    stages = ("search", "prune", *(["finetune"] if content["finetuned"] else []))
    return [count(row["params"]), *(duration(row["seconds"][stage]) for stage in stages)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
