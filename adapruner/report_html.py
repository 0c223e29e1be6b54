"""report.html: the report as one page that needs nothing but itself.

All text is escaped by the template engine, as names come from users; the page's own policy forbids
it every request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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


def page(report: Mapping[str, Any]) -> str:
    """The report as an HTML document, without a reference to anything outside it."""
    environment = Environment(
        loader=PackageLoader("adapruner"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "percent": text.percent,
        "duration": text.duration,
        "breakable": _breakable,
    }
    style, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return environment.get_template("report.html.j2").render(
        report=report,
        style=Markup(style),
        verdict=text.verdict(report),
        tiles=_tiles(report),
        rows=text.rows(report),
        removed=_removed(report["plan"]),
        search_chart=charts.search_history(report["search"]),
        width_charts=_width_charts(report["plan"]),
        loss_chart=charts.loss(report["finetune"]["curve"] or []),
        stages=_stages(report["timings_s"]),
        pool=list(_flat({k: v for k, v in report["pool"].items() if not _entries(v)})),
        pool_tables={k: _entries(v) for k, v in report["pool"].items() if _entries(v)},
        provenance=list(_flat(_brief(report["provenance"]))),
        command=f"adapruner compress -c {report['name']}.yaml",
        settings=_settings(report["provenance"]["config"]),
    )


def _breakable(name: str) -> Markup:
    """A name that may break after an underscore, as it has no blanks."""
    return Markup("_<wbr>").join(name.split("_"))


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


def _entries(value: Any) -> list[dict[str, Any]]:
    """A list of mappings, or a mapping of mappings, as the rows of a table; [] for all else."""
    if isinstance(value, Mapping):
        value = [{"": name, **row} for name, row in value.items() if isinstance(row, Mapping)]
    is_table = isinstance(value, list) and all(isinstance(row, Mapping) for row in value)
    return [{key: _cell(item) for key, item in row.items()} for row in value] if is_table else []


def _cell(value: Any) -> str:
    """A value short enough for a table: of a hash its first 12 digits."""
    return f"{value[:12]}…" if re.fullmatch("[0-9a-f]{64}", str(value)) else text.number(value)


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as (dotted name, value) pairs, in their order."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(values, list):
        yield path, ", ".join(text.number(value) for value in values)
    else:
        yield path, text.number(values)


def _brief(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance without the settings, which the page shows as the file that repeats the run."""
    return {key: value for key, value in provenance.items() if key not in ("config", "created")}


def _settings(config: Mapping[str, Any]) -> str:
    """The run's settings as the file that `adapruner compress -c` reads."""
    return yaml.safe_dump({"parameters": {"config": config}}, sort_keys=False, allow_unicode=True)
