"""report.html: the report as one page that needs nothing but itself.

All text is escaped by the template engine, as names come from users; the page's own policy forbids
it every request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adapruner.report import gate, format as report_text
from adapruner.report import charts as charts
from adapruner.report import rows as comparison
from adapruner.report import values as sections

TYPOGRAPHY = (
    (re.compile(r"(?<![\w.])-(?=\d)"), "\N{MINUS SIGN}"),
    (re.compile(r"(?<=\d\.\d\d)x\b"), "\N{MULTIPLICATION SIGN}"),
    (
        re.compile(r"(?<=\d) (?=(?:%|[kMB]|[kMG]?B|[kMGT]?FLOP|s|min|h)(?!\w))"),
        "\N{NO-BREAK SPACE}",
    ),
)
"""Signs that a terminal may not have -> those of print; a unit stays on its number's line."""


def page(report: Mapping[str, Any]) -> str:
    """The report as an HTML document, without a reference to anything outside it.

    It has every section, as `report_files.complete` makes it.
    """
    search, pool = report["search"], report["pool"]
    return render(
        "report.html.j2",
        title=f"{report['name']} · AdaPruner report",
        report=report,
        gate_state=gate.state(report["gate"]),
        verdict=comparison.verdict(report),
        tiles=list(sections.tiles(report)),
        quality=comparison.quality(report),
        tasks=sections.tasks(report),
        retention_chart=sections.retention_chart(report),
        costs=[*comparison.weights(report), *comparison.costs(report)],
        speeds=comparison.speeds(report["speed"]),
        speed_chart=sections.speed_chart(report),
        protocol=comparison.protocol(report["speed"]),
        removed=sections.removed(report["plan"]),
        heat_map=charts.heat_map(report["plan"]),
        layer_losses=charts.layer_losses(search),
        least_kept=charts.least_kept(report["plan"]),
        search_chart=charts.search_history(search),
        held_out_chart=charts.held_out(search),
        held_out=sections.held_out(search),
        importance=sections.bars(search.get("importance") or {}),
        best_start=sections.best_start(search),
        loss_chart=charts.loss(report["finetune"]["curve"] or []),
        is_held_out=any("held_out" in row for row in report["finetune"]["curve"] or []),
        behaviour=report["behaviour"] or {"continuations": [], "texts": {}},
        models=[m for m in report_text.MODELS if m != "finetuned" or tuned(report)],
        stages=sections.bars(report["timings_s"]),
        total_s=sum(report["timings_s"].values()),
        pool=list(sections.flat({k: v for k, v in pool.items() if not sections.is_table(v)})),
        pool_tables={k: sections.pool_table(v) for k, v in pool.items() if sections.is_table(v)},
        provenance=sections.provenance(report["provenance"]),
        command=f"adapruner compress -c {report['name']}.yaml",
        settings=settings_file(report["provenance"]["config"]),
    )


def tuned(report: Mapping[str, Any]) -> bool:
    return report_text.final_model(report) == "finetuned"


def render(template: str, **values: Any) -> str:
    """A template of the package filled with `values`, the style sheet among them."""
    environment = Environment(
        loader=PackageLoader("adapruner"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    environment.globals |= {"names": report_text.NAMES} | {n: FILTERS[n] for n in FORMS}
    style, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    return environment.get_template(template).render(style=Markup(style), **values)


def _typeset(words: str) -> str:
    for pattern, sign in TYPOGRAPHY:
        words = pattern.sub(sign, words)
    return words


def _breakable(name: str) -> Markup:
    """A name that may break after an underscore, as it has no blanks."""
    return Markup("_<wbr>").join(name.split("_"))


FILTERS: dict[str, Callable[..., str]] = {
    "typeset": _typeset,
    "number": report_text.number,
    "percent": lambda share: _typeset(report_text.percent(share)),
    "duration": lambda seconds: _typeset(report_text.duration(seconds)),
    "breakable": _breakable,
}


FORMS = ("percent", "duration")
"""Filters that a template hands to a macro, and so needs as functions."""


def settings_file(config: Mapping[str, Any]) -> str:
    """The run's settings as the file that `adapruner compress -c` reads."""
    return yaml.safe_dump({"parameters": {"config": config}}, sort_keys=False, allow_unicode=True)
