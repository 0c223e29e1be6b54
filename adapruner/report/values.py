"""What the sections of the page are made of, as plain values for its templates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from adapruner.report import charts as charts
from adapruner.report import rows as comparison
from adapruner.report import format as text
from adapruner.report.charts import STRUCTURES, Interval

Report = Mapping[str, Any]

GROUPS = {
    "hashes": ("hashes", "config_hash"),
    "versions": ("versions",),
    "sources": ("source", "texts", "seed"),
}
"""Heading of the provenance -> the entries below it; what is in none of them stands last."""


def tiles(report: Report) -> Iterator[dict[str, Any]]:
    """The few numbers to see first: a large one, what it is, what it is made of."""
    told = text.headline(report)
    if told:
        metric, dense, final = told
        label = "perplexity" if text.PERPLEXITY.match(metric) else metric
        from_to = f"{text.number(dense)} → {text.number(final)}"
        ratio = text.times(final / dense) if dense else text.MISSING
        yield {"label": label, "value": ratio, "detail": from_to, "note": metric}
    mean = (retention(report).get(text.final_model(report)) or {}).get("mean")
    if mean:
        from_to = f"{text.number(mean['dense'])} → {text.number(mean['model'])}"
        note = f"mean over tasks, {text.percent(mean['low'])} to {text.percent(mean['high'])}"
        value = text.percent(mean["retention"])
        yield {"label": "retention", "value": value, "detail": from_to, "note": note}
    params = report["params"]
    yield _tile("parameters", params, ("dense", "pruned"), text.count)
    if params.get("bytes_pruned") is not None:
        yield _tile("on disk", params, ("bytes_dense", "bytes_pruned"), text.size)
    for row in comparison.speeds(report.get("speed"))[:2]:
        phase, _, setting = row.name.removesuffix(", tokens/s").partition(", ")
        from_to = f"{row.cells[0]} → {row.cells[1]}"
        note = f"tokens/s, {setting}{comparison.doubt(row)}"
        yield {"label": f"{phase} speed", "value": row.change, "detail": from_to, "note": note}


def _tile(label: str, values: Report, keys: tuple[str, str], form: Any) -> dict[str, Any]:
    dense, pruned = (values.get(key) for key in keys)
    known = dense and pruned is not None
    value = text.percent(pruned / dense - 1) if known and dense and pruned else text.MISSING
    before, after = form(dense), form(pruned)
    unit = after.partition(" ")[1:]
    detail = f"{before.removesuffix(''.join(unit)) or before} → {after}"
    return {"label": label, "value": value, "detail": detail, "note": "dense → pruned"}


def retention(report: Report) -> Mapping[str, Any]:
    """Model -> its retention; empty where no tasks were asked for."""
    return report.get("retention") or {}


def tasks(report: Report) -> list[dict[str, Any]]:
    """A row a task: scores of each model, what the final one retains, and which rows flipped."""
    found = retention(report)
    final = found.get(text.final_model(report)) or {"tasks": {}}
    rows = []
    for task, kept in final["tasks"].items():
        pruned = ((found.get("pruned") or {}).get("tasks") or {}).get(task) or {}
        tuned = kept if text.final_model(report) == "finetuned" else {}
        scores = [kept["dense"], pruned.get("model"), tuned.get("model")]
        flips = {name: kept.get(name) or [] for name in ("broken", "fixed")}
        rows.append({"task": task, "scores": scores, **kept, **flips})
    return rows


def retention_chart(report: Report) -> Markup | None:
    """The share of the dense model's score that each task keeps, with its interval."""
    rows: dict[str, dict[str, Interval]] = {}
    for model in ("pruned", "finetuned"):
        found = retention(report).get(model)
        entries = {**found["tasks"], "mean": found.get("mean")} if found else {}
        for name, kept in entries.items():
            if kept and None not in (kept["retention"], kept["low"], kept["high"]):
                share, low, high = kept["retention"], kept["low"], kept["high"]
                told = (
                    f"{text.NAMES[model]} keeps {text.percent(share)} "
                    f"({text.percent(low)} to {text.percent(high)})"
                )
                rows.setdefault(name, {})[model] = Interval(share, low, high, told)
    colours = {"pruned": "warm", "finetuned": "accent"}
    return charts.intervals("retention", "Retention of each task", rows, colours)


def speed_chart(report: Report) -> Markup | None:
    """Both models' speed at each setting, as shares of the dense model's median."""
    speed = report.get("speed") or {"speedup": {}}
    rows: dict[str, dict[str, Interval]] = {}
    for phase in comparison.PHASES:
        for at in comparison.settings(speed):
            name = f"{phase} {comparison.short_name(at)}"
            unit = speed["dense"][at][f"{phase}_tokens_per_s"]["median"]
            rows[name] = {
                model: _rate(speed[model][at][f"{phase}_tokens_per_s"], unit, model)
                for model in ("dense", "pruned")
            }
    return charts.intervals(
        "speed", "Speed against the dense model", rows, {"dense": "quiet", "pruned": "accent"}
    )


def _rate(rate: Mapping[str, float], unit: float, model: str) -> Interval:
    low, high = rate.get("q1", rate["min"]), rate.get("q3", rate["max"])
    told = (
        f"{model} {text.number(rate['median'])} tokens/s, "
        f"middle half {text.number(low)} to {text.number(high)}"
    )
    return Interval(rate["median"] / unit, low / unit, high / unit, told)


def removed(plan: Report) -> list[dict[str, Any]]:
    """Sum over the layers of each kind of structure: dense, kept, layers that lost some."""
    found = []
    for name, (field, dense_field) in STRUCTURES.items() if plan["layers"] else ():
        kept = [layer[field] for layer in plan["layers"]]
        dense = [layer[dense_field] for layer in plan["layers"]]
        found.append(
            {
                "name": name,
                "dense": sum(dense),
                "kept": sum(kept),
                "removed": sum(dense) - sum(kept),
                "share": 1 - sum(kept) / sum(dense),
                "layers": sum(map(int.__lt__, kept, dense)),
            }
        )
    return found


def bars(shares: Mapping[str, float]) -> list[dict[str, Any]]:
    """Values as bars whose lengths are shares of the largest."""
    longest = max(shares.values(), default=0) or 1
    return [
        {"name": name, "value": value, "share": value / longest} for name, value in shares.items()
    ]


def best_start(search: Report) -> Mapping[str, Any] | None:
    """The warm start that came out best, as the search is to be judged by what it adds to it."""
    finished = [start for start in search["warm_starts"] if start["value"] is not None]
    return min(finished, key=lambda start: start["value"], default=None)


def held_out(search: Report) -> list[tuple[str, str]]:
    """What the search says of text that no trial saw, flat."""
    known = search.get("held_out") or {}
    return [(path.replace("_", " "), text.number(value)) for path, value in _leaves(known)]


def _leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as (dotted name, value) pairs, in their order."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values


def is_table(value: Any) -> bool:
    """Whether it is a non-empty list of mappings or mapping of mappings."""
    rows = list(value.values()) if isinstance(value, Mapping) else value
    return isinstance(rows, list) and bool(rows) and all(isinstance(r, Mapping) for r in rows)


def pool_table(value: Any) -> dict[str, Any]:
    """Rows of a pool's table: a name with its other words below it, and a column a count."""
    named = list(value.items()) if isinstance(value, Mapping) else [(None, row) for row in value]
    heads = list(dict.fromkeys(k for _, row in named for k, v in row.items() if _is_count(v)))
    rows = []
    for name, row in named:
        words = [_word(k, v) for k, v in row.items() if v is not None and not _is_count(v)]
        first, *rest = words if name is None else (str(name), *words)
        cells = [text.number(row.get(head)) for head in heads]
        rows.append({"name": first, "words": rest, "cells": cells})
    return {"heads": heads, "rows": rows}


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(key: str, value: Any) -> str:
    """A value as words: of a hash its first 12 digits, as the whole is in report.json."""
    if re.fullmatch("[0-9a-f]{64}", str(value)):
        return f"{key.replace('_', ' ')} {value[:12]}…"
    return text.number(value)


def provenance(facts: Report) -> dict[str, list[tuple[str, str]]]:
    """Where the result comes from, by heading, without the settings: these are the run's file."""
    rest = {key: value for key, value in facts.items() if key not in ("config", "created")}
    found = {}
    for heading, keys in GROUPS.items():
        group = {key: rest.pop(key) for key in keys if key in rest}
        # Entries of the mapping that gave the heading its name need not repeat it.
        own = group.pop(heading) if isinstance(group.get(heading), Mapping) else {}
        found[heading] = [*flat(own), *flat(group)]
    return {heading: rows for heading, rows in {**found, "other": list(flat(rest))}.items() if rows}


def flat(values: Any) -> Iterator[tuple[str, str]]:
    """Nested mappings as (dotted name, text) pairs, in their order; numbers as in report.json."""
    for path, value in _leaves(values):
        yield path, ", ".join(map(plain, value)) if isinstance(value, list) else plain(value)


def plain(value: Any) -> str:
    """A setting or an identifier: a seed has no thousands separators."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text.MISSING if value is None else str(value)
