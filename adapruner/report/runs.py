"""Several runs side by side: what each kept, what it saved, and which settings differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from adapruner.report import format as text
from adapruner.report import gate
from adapruner.report.results import (
    Report,
    dense_and_final,
    final_model,
    mean_retention,
    perplexity_ratio,
    size_ratio,
)
from adapruner.report.rows import Form
from adapruner.report.sections.cost import PHASES, setting_name, speed_settings, speedup

Measure = Callable[[Report], float | None]


class Line(NamedTuple):
    """One result of all runs: as numbers, as text, and the positions of the best runs."""

    name: str
    values: tuple[float | None, ...]
    cells: tuple[str, ...]
    best: frozenset[int]


class Difference(NamedTuple):
    """One setting that is not the same in all runs; `odd` are the positions of rarer values."""

    name: str
    cells: tuple[str, ...]
    odd: frozenset[int]


class RunComparison(NamedTuple):
    """Several runs side by side; every cell of a line or difference is that of one run."""

    names: tuple[str, ...]
    models: tuple[str, ...]
    gates: tuple[str, ...]
    reports: tuple[Report, ...]
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]


def compare_runs(reports: Sequence[Report]) -> RunComparison:
    """The comparison of reports. The second run of a name is numbered."""
    return RunComparison(
        names=_numbered([report["name"] for report in reports]),
        models=tuple(report["provenance"]["config"]["model"]["source"] for report in reports),
        gates=tuple(gate.state(report["gate"]) for report in reports),
        reports=tuple(reports),
        lines=tuple(_lines(reports)),
        differences=tuple(_differences(reports)),
    )


def shared_perplexity(reports: Sequence[Report]) -> str | None:
    """The first perplexity that the dense and the final model of all runs have."""
    names = reports[0]["metrics"]["dense"] or {}
    perplexities = (name for name in names if text.PERPLEXITY.match(name))
    return next((n for n in perplexities if all(dense_and_final(r, n) for r in reports)), None)


def decode_speedup(report: Report) -> float | None:
    """Speedup of decoding at the smallest setting of the run; None if speed was not measured."""
    speed = report.get("speed")
    return speedup(report, speed_settings(speed)[0], "decode") if speed else None


def _lines(reports: Sequence[Report]) -> list[Line]:
    retentions = [mean_retention(report) for report in reports]
    lines = [
        _line("parameters", [r["params"]["pruned"] for r in reports], text.count),
        _line("parameters kept", [size_ratio(r) for r in reports], text.percent),
        _line("weights on disk", [_weight_bytes(r) for r in reports], text.size),
        *_metric_lines(reports),
        _line("mean retention", retentions, text.percent, less_is_good=False),
        *_speed_lines(reports),
    ]
    return [line for line in lines if any(value is not None for value in line.values)]


def _metric_lines(reports: Sequence[Report]) -> list[Line]:
    metrics: dict[str, None] = {}
    for report in reports:
        metrics |= dict.fromkeys(report["metrics"][final_model(report)] or {})
    lines = []
    for metric in sorted(metrics, key=lambda name: text.PERPLEXITY.match(name) is None):
        less_is_good = text.lower_is_better(metric)
        values = [(dense_and_final(report, metric) or (None, None))[1] for report in reports]
        lines.append(_line(metric, values, text.number, less_is_good=less_is_good))
        if text.PERPLEXITY.match(metric):
            ratios = [perplexity_ratio(report, metric) for report in reports]
            lines.append(_line(f"{metric}, of dense", ratios, text.times))
    return lines


def _speed_lines(reports: Sequence[Report]) -> list[Line]:
    speeds = [report["speed"] for report in reports if report.get("speed")]
    settings = dict.fromkeys(setting for speed in speeds for setting in speed_settings(speed))
    lines = []
    for setting in settings:
        for phase in PHASES:
            values = [speedup(report, setting, phase) for report in reports]
            name = f"{phase} speedup, {setting_name(setting)}"
            lines.append(_line(name, values, text.times, less_is_good=False))
    return lines


def _line(
    name: str, values: Sequence[float | None], form: Form, *, less_is_good: bool = True
) -> Line:
    measured = [value for value in values if value is not None]
    best: frozenset[int] = frozenset()
    if len(set(measured)) > 1:
        extreme = min(measured) if less_is_good else max(measured)
        best = frozenset(i for i, value in enumerate(values) if value == extreme)
    return Line(name, tuple(values), tuple(map(form, values)), best)


def _weight_bytes(report: Report) -> float | None:
    sizes = report["weight_bytes"]
    result: float | None = sizes["finetuned"] or sizes["pruned"]
    return result


def _differences(reports: Sequence[Report]) -> list[Difference]:
    settings = [dict(text.flat_settings(report["provenance"]["config"])) for report in reports]
    names = dict.fromkeys(name for values in settings for name in values)
    differences = []
    for name in names:
        cells = tuple(values.get(name, text.MISSING) for values in settings)
        if name != "name" and len(set(cells)) > 1:
            usual = max(dict.fromkeys(cells), key=cells.count)
            odd = frozenset(i for i, cell in enumerate(cells) if cell != usual)
            differences.append(Difference(name, cells, odd))
    return differences


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number from the second run of a name on."""
    earlier = [names[:position].count(name) for position, name in enumerate(names)]
    return tuple(f"{n} ({k + 1})" if k else n for n, k in zip(names, earlier, strict=True))
