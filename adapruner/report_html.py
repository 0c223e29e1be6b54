"""report.html: the report as one page that needs nothing but itself.

All text is escaped by the template engine, as names come from users; the page's own policy forbids
it every request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adapruner import report_charts as charts
from adapruner import report_text as text

STRUCTURES = {
    "MLP channels": ("mlp_width", "mlp_dense_width"),
    "query heads": ("query_heads", "query_dense_heads"),
    "KV groups": ("kv_groups", "kv_dense_groups"),
}
"""Structure as people call it -> a layer's fields of what is kept and what there was."""

TYPOGRAPHY = (
    (re.compile(r"(?<![\w.])-(?=\d)"), "\N{MINUS SIGN}"),
    (re.compile(r"(?<=\d\.\d\d)x\b"), "\N{MULTIPLICATION SIGN}"),
    (re.compile(r"(?<=\d) (?=(?:%|[kMB]|[kMG]?B|s|min|h)(?!\w))"), "\N{NO-BREAK SPACE}"),
)
"""Signs that a terminal may not have -> those of print; a unit stays on its number's line."""


def page(report: Mapping[str, Any]) -> str:
    """The report as an HTML document, without a reference to anything outside it."""
    environment = Environment(
        loader=PackageLoader("adapruner"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    style, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return environment.get_template("report.html.j2").render(
        report=report,
        style=Markup(style),
        verdict=text.verdict(report),
        tiles=_tiles(report),
        rows=text.rows(report),
        protocol=text.protocol(report["speed"]),
        removed=_removed(report["plan"]),
        search_chart=charts.search_history(report["search"]),
        width_charts=_width_charts(report["plan"]),
        loss_chart=charts.loss(report["finetune"]["curve"] or []),
        best_start=_best_start(report["search"]),
        stages=_stages(report["timings_s"]),
        total_s=sum(report["timings_s"].values()),
        pool=list(_flat({k: v for k, v in report["pool"].items() if not _is_table(v)})),
        pool_tables={k: _pool_table(v) for k, v in report["pool"].items() if _is_table(v)},
        provenance=list(_flat(_brief(report["provenance"]))),
        command=f"adapruner compress -c {report['name']}.yaml",
        settings=_settings(report["provenance"]["config"]),
    )


def _typeset(words: str) -> str:
    for pattern, sign in TYPOGRAPHY:
        words = pattern.sub(sign, words)
    return words


def _breakable(name: str) -> Markup:
    """A name that may break after an underscore, as it has no blanks."""
    return Markup("_<wbr>").join(name.split("_"))


FILTERS: dict[str, Callable[..., str]] = {
    "typeset": _typeset,
    "number": text.number,
    "percent": lambda share: _typeset(text.percent(share)),
    "duration": lambda seconds: _typeset(text.duration(seconds)),
    "breakable": _breakable,
}


def _tiles(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The few numbers to see first: a large one, what it is, what it is made of."""
    params = report["params"]
    yield _tile(
        "parameters",
        _less(params["dense"], params["pruned"]),
        text.count,
        params,
        ("dense", "pruned"),
    )
    sizes = ("bytes_dense", "bytes_pruned")
    if params[sizes[1]] is not None:
        yield _tile("on disk", _less(*(params[s] for s in sizes)), text.size, params, sizes)
    told = text.headline(report)
    if told:
        metric, dense, final = told
        label = "perplexity" if text.PERPLEXITY.match(metric) else metric
        from_to = f"{text.number(dense)} → {text.number(final)}"
        ratio = text.times(final / dense) if dense else text.MISSING
        yield {"label": label, "value": ratio, "detail": from_to, "note": metric}
    for row in text.speeds(report["speed"])[:2]:
        phase, _, batch = row.name.removesuffix(", tokens/s").partition(" at ")
        from_to = f"{row.cells[0]} → {row.cells[1]}"
        note = f"tokens/s at {batch}{text.doubt(row)}"
        yield {"label": f"{phase} speed", "value": row.change, "detail": from_to, "note": note}


def _tile(
    label: str, value: str, form: Any, values: Mapping[str, Any], keys: tuple[str, str]
) -> dict[str, Any]:
    before, after = (form(values[key]) for key in keys)
    unit = after.partition(" ")[1:]
    detail = f"{before.removesuffix(''.join(unit)) or before} → {after}"
    return {"label": label, "value": value, "detail": detail, "note": "dense → pruned"}


def _less(dense: float | None, pruned: float | None) -> str:
    if not dense or pruned is None:
        return text.MISSING
    return text.percent(pruned / dense - 1)


def _removed(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
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


def _width_charts(plan: Mapping[str, Any]) -> dict[str, Markup | None]:
    """A chart for each kind of structure that lost something."""
    return {
        entry["name"]: charts.widths(plan, *STRUCTURES[entry["name"]], entry["name"])
        for entry in _removed(plan)
        if entry["removed"]
    }


def _stages(timings_s: Mapping[str, float]) -> list[dict[str, Any]]:
    longest = max(timings_s.values(), default=0) or 1
    return [
        {"name": name, "seconds": seconds, "share": seconds / longest}
        for name, seconds in timings_s.items()
    ]


def _best_start(search: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The warm start that came out best, as the search is to be judged by what it adds to it."""
    finished = [start for start in search["warm_starts"] if start["value"] is not None]
    return min(finished, key=lambda start: start["value"], default=None)


def _is_table(value: Any) -> bool:
    """Whether it is a non-empty list of mappings or mapping of mappings."""
    rows = list(value.values()) if isinstance(value, Mapping) else value
    return isinstance(rows, list) and bool(rows) and all(isinstance(r, Mapping) for r in rows)


def _pool_table(value: Any) -> dict[str, Any]:
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


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as (dotted name, value) pairs, in their order; numbers as in report.json."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(values, list):
        yield path, ", ".join(_plain(value) for value in values)
    else:
        yield path, _plain(values)


def _plain(value: Any) -> str:
    """A setting or an identifier: a seed has no thousands separators."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text.MISSING if value is None else str(value)


def _brief(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance without the settings, which the page shows as the file that repeats the run."""
    return {key: value for key, value in provenance.items() if key not in ("config", "created")}


def _settings(config: Mapping[str, Any]) -> str:
    """The run's settings as the file that `adapruner compress -c` reads."""
    return yaml.safe_dump({"parameters": {"config": config}}, sort_keys=False, allow_unicode=True)
