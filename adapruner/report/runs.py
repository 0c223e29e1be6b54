"""Several runs beside each other: what each kept, what it saved, and which settings differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from adapruner.report import gate
from adapruner.report import format as text
from adapruner.report.rows import PHASES, setting_name, settings
from adapruner.report.values import flat

Report = Mapping[str, Any]


class Line(NamedTuple):
    """One fact of all runs: `values` as numbers, `cells` as text, `best` the places of the best."""

    name: str
    values: tuple[float | None, ...]
    cells: tuple[str, ...]
    best: frozenset[int]


class Difference(NamedTuple):
    """One setting that is not the same in all runs; `odd` are the places of rarer values."""

    name: str
    cells: tuple[str, ...]
    odd: frozenset[int]


class Compared(NamedTuple):
    """What a comparison shows, in the order of the runs."""

    names: tuple[str, ...]
    models: tuple[str, ...]
    gates: tuple[str, ...]
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]
    reports: tuple[Report, ...]


def compare(reports: Sequence[Report]) -> Compared:
    """Compares reports that `report_files.read` gave. Two runs of one name are told apart."""
    return Compared(
        names=_names([report["name"] for report in reports]),
        models=tuple(report["provenance"]["config"]["model"]["source"] for report in reports),
        gates=tuple(gate.state(report.get("gate")) for report in reports),
        lines=tuple(_lines(reports)),
        differences=tuple(_differences(reports)),
        reports=tuple(reports),
    )


def table(compared: Compared) -> Table:
    """The comparison for a terminal: a column a run, and the settings that differ below."""
    result = Table(title="runs beside each other (best in bold)", title_style="bold")
    result.add_column("", overflow="fold")
    for name in compared.names:
        result.add_column(Text(name), justify="right", overflow="fold")
    result.add_row("gate", *compared.gates)
    for line in compared.lines:
        cells = (Text(c, "bold" if i in line.best else "") for i, c in enumerate(line.cells))
        result.add_row(Text(line.name), *cells)
    result.add_section()
    for difference in compared.differences:
        result.add_row(Text(difference.name), *map(Text, difference.cells), style="dim")
    return result


def final(report: Report, metric: str) -> tuple[float, float] | None:
    """The dense and the delivered model's value of a metric, where both are known."""
    dense = (report["metrics"].get("dense") or {}).get(metric)
    value = (report["metrics"].get(text.final_model(report)) or {}).get(metric)
    return None if dense is None or value is None else (dense, value)


def retention(report: Report) -> float | None:
    """Mean share of the dense model's task scores that the delivered model keeps."""
    kept = ((report.get("retention") or {}).get(text.final_model(report)) or {}).get("mean")
    return kept["retention"] if kept else None


def shared_perplexity(reports: Sequence[Report]) -> str | None:
    """The first perplexity that all runs measured, dense and delivered."""
    names = (reports[0]["metrics"].get("dense") or {}) if reports else {}
    for name in names:
        if text.PERPLEXITY.match(name) and all(final(report, name) for report in reports):
            return str(name)
    return None


def perplexity_ratio(report: Report, metric: str) -> float | None:
    """Perplexity of the delivered model over the dense one's."""
    known = final(report, metric)
    return known[1] / known[0] if known and known[0] else None


def parameters_left(report: Report) -> float | None:
    """Share of the dense model's parameters."""
    dense, pruned = report["params"].get("dense"), report["params"].get("pruned")
    return pruned / dense if dense and pruned is not None else None


def decode_speedup(report: Report) -> float | None:
    """Speedup of decoding at the smallest setting measured."""
    speed = report.get("speed")
    return speed["speedup"][settings(speed)[0]]["decode"] if speed else None


def _lines(reports: Sequence[Report]) -> list[Line]:
    found = [
        _line("parameters", [r["params"].get("pruned") for r in reports], text.count, less=True),
        _line("parameters left", [parameters_left(r) for r in reports], text.percent, less=True),
        _line("weights on disk", [_bytes(r) for r in reports], text.size, less=True),
    ]
    metrics: dict[str, None] = {}
    for report in reports:
        metrics |= dict.fromkeys(report["metrics"].get(text.final_model(report)) or {})
    for metric in sorted(metrics, key=lambda name: text.PERPLEXITY.match(name) is None):
        known = [final(report, metric) for report in reports]
        values = [pair[1] if pair else None for pair in known]
        less = text.lower_is_better(metric)
        found.append(_line(metric, values, text.number, less=less))
        if text.PERPLEXITY.match(metric):
            ratios = [perplexity_ratio(report, metric) for report in reports]
            found.append(_line(f"{metric}, of dense", ratios, text.times, less=True))
    found.append(_line("mean retention", [retention(r) for r in reports], text.percent, less=False))
    speeds = {at: None for r in reports if r.get("speed") for at in settings(r["speed"])}
    for at in speeds:
        for phase in PHASES:
            gained = [_speedup(report, at, phase) for report in reports]
            name = f"{phase} speedup, {setting_name(at)}"
            found.append(_line(name, gained, text.times, less=False))
    return [line for line in found if any(value is not None for value in line.values)]


def _line(
    name: str,
    values: Sequence[float | None],
    form: Callable[[float | None], str],
    *,
    less: bool,
) -> Line:
    known = [value for value in values if value is not None]
    extreme = (min if less else max)(known) if known else None
    best = frozenset(i for i, value in enumerate(values) if value == extreme)
    is_told = len(set(known)) > 1
    cells = tuple(map(form, values))
    return Line(name, tuple(values), cells, best if is_told else frozenset())


def _bytes(report: Report) -> float | None:
    params = report["params"]
    found: float | None = params.get("bytes_finetuned") or params.get("bytes_pruned")
    return found


def _speedup(report: Report, at: str, phase: str) -> float | None:
    found: float | None = ((report.get("speed") or {}).get("speedup") or {}).get(at, {}).get(phase)
    return found


def _differences(reports: Sequence[Report]) -> list[Difference]:
    spelled = [dict(flat(report["provenance"]["config"])) for report in reports]
    names = dict.fromkeys(name for values in spelled for name in values)
    found = []
    for name in names:
        cells = tuple(values.get(name, text.MISSING) for values in spelled)
        if name != "name" and len(set(cells)) > 1:
            usual = max(dict.fromkeys(cells), key=cells.count)
            odd = frozenset(i for i, cell in enumerate(cells) if cell != usual)
            found.append(Difference(name, cells, odd))
    return found


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """Names as they are, numbered from the second run of a name on."""
    before = [given[:place].count(name) for place, name in enumerate(given)]
    return tuple(f"{n} ({k + 1})" if k else n for n, k in zip(given, before, strict=True))
