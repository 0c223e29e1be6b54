"""The header: the gate, the outcome in a sentence and the most important numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapruner.config.pruning import RATIO_BASES
from adapruner.report import gate
from adapruner.report.format import MISSING, PERPLEXITY, count, number, percent, size, times
from adapruner.report.results import (
    Report,
    dense_and_final,
    final_model,
    headline_metric,
    mean_retention,
    retention_of,
    zero_weights,
)
from adapruner.report.rows import Form, Row
from adapruner.report.sections import target
from adapruner.report.sections.base import Section
from adapruner.report.sections.cost import speed_rows

SPEED_TILES = 2
"""Speed rows that the header shows: prefill and decode of the smallest setting."""


def view(report: Report) -> dict[str, Any]:
    """Name, source, gate, verdict and tiles."""
    return {
        "name": report["name"],
        "created": report["created"],
        "source": report["provenance"]["config"]["model"]["source"],
        "layout": report["plan"]["layout"],
        "ratio": report["ratio"],
        "zeros": zero_weights(report),
        "requested_of": RATIO_BASES[report["ratio"]["of"]],
        "gate": report["gate"],
        "gate_state": gate.state(report["gate"]),
        "verdict": verdict(report),
        "tiles": list(tiles(report)),
    }


def verdict(report: Report) -> str:
    """The outcome in one sentence of measured facts."""
    metric, facts = headline_metric(report), [_removed(report), *target.verdict(report)]
    if metric and (pair := dense_and_final(report, metric)):
        tuned = final_model(report) == "finetuned"
        state = "after fine-tuning" if tuned else "without fine-tuning"
        facts.append(f"{metric} went from {number(pair[0])} to {number(pair[1])} {state}")
    if (retention := mean_retention(report)) is not None:
        facts.append(f"{percent(retention)} of the task scores are kept")
    facts += [
        f"{row.name.removesuffix(', tokens/s')} runs at {row.change}{noise_note(row)}"
        for row in speed_rows(report)[:SPEED_TILES]
    ]
    return "; ".join(facts) + "."


def _removed(report: Report) -> str:
    params, zeros = report["params"], zero_weights(report)
    if zeros:
        return (
            f"{count(zeros)} of {count(params['dense'])} parameters are zero "
            f"({percent(zeros / params['dense'])}) and none is removed, so the model is no smaller"
        )
    return (
        f"{count(params['removed'])} of {count(params['dense'])} parameters were removed "
        f"({percent(report['ratio']['achieved_all'])})"
    )


def tiles(report: Report) -> Iterator[dict[str, str]]:
    """The most important numbers: label, value, detail (dense -> final) and note of each."""
    metric = headline_metric(report)
    if metric and (pair := dense_and_final(report, metric)):
        label = "perplexity" if PERPLEXITY.match(metric) else metric
        value = times(pair[1] / pair[0]) if pair[0] else MISSING
        yield _tile(label, value, _arrow(*map(number, pair)), metric)
    if mean := retention_of(report, final_model(report))["mean"]:
        note = f"mean over tasks, {percent(mean['low'])} to {percent(mean['high'])}"
        detail = _arrow(number(mean["dense"]), number(mean["model"]))
        yield _tile("retention", percent(mean_retention(report)), detail, note)
    yield _size_tile("parameters", report["params"], count)
    if zeros := zero_weights(report):
        note = "2 of each 4 in the projections"
        share = percent(zeros / report["params"]["dense"])
        yield _tile("zero weights", share, count(zeros), note)
    if report["weight_bytes"]["pruned"] is not None:
        yield _size_tile("on disk", report["weight_bytes"], size)
    for row in target.rows(report):
        name, _, kind = row.name.removesuffix(", ms").partition(", ")
        unit = " ms" if kind else ""
        yield _tile(name, row.change, _arrow(*row.cells[:2]) + unit, kind or "as planned")
    for row in speed_rows(report)[:SPEED_TILES]:
        phase, _, setting = row.name.removesuffix(", tokens/s").partition(", ")
        note = f"tokens/s, {setting}{noise_note(row)}"
        yield _tile(f"{phase} speed", row.change, _arrow(*row.cells[:2]), note)


def noise_note(row: Row) -> str:
    """The addition to a speed that lies within the noise of its repeats."""
    return " (within noise)" if row.good is None else ""


def _size_tile(label: str, values: Report, form: Form) -> dict[str, str]:
    dense, pruned = values["dense"], values["pruned"]
    is_measured = dense and pruned is not None
    value = percent(pruned / dense - 1) if is_measured else MISSING
    before, after = form(dense), form(pruned)
    unit = "".join(after.partition(" ")[1:])
    detail = _arrow(before.removesuffix(unit) or before, after)
    return _tile(label, value, detail, "dense → pruned")


def _arrow(before: str, after: str) -> str:
    return f"{before} → {after}"


def _tile(label: str, value: str, detail: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "detail": detail, "note": note}


SECTION = Section("headline", "", view, "headline.html.j2")
