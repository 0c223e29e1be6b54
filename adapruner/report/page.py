"""report.html: the report as one page that needs nothing but itself.

The template engine escapes all text, as names come from users, and the page's content security
policy forbids all requests.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adapruner.report import format as text
from adapruner.report import sections
from adapruner.report.results import MODEL_NAMES

TYPOGRAPHY = (
    (re.compile(r"(?<![\w.])-(?=\d)"), "\N{MINUS SIGN}"),
    (re.compile(r"(?<=\d\.\d\d)x\b"), "\N{MULTIPLICATION SIGN}"),
    (
        re.compile(r"(?<=\d) (?=(?:%|[kMB]|[kMGT]?B|[kMGT]?FLOP|s|min|h)(?!\w))"),
        "\N{NO-BREAK SPACE}",
    ),
)
"""Signs that a terminal may not have -> those of print; a unit stays on its number's line."""


def page(report: Mapping[str, Any]) -> str:
    """The report as an HTML document, without a reference to anything outside it."""
    bodies = []
    for section in sections.SECTIONS:
        values = section.view(report)
        if values is not None:
            body = Markup(render(section.template, **values))
            bodies.append({"id": section.id, "title": section.title, "body": body})
    title = f"{report['name']} · AdaPruner report"
    return render("report.html.j2", title=title, sections=bodies)


def render(template: str, **values: Any) -> str:
    """A template of the package filled with `values`."""
    return _environment().get_template(template).render(**values)


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
    "named_numbers": text.named_numbers,
    "percent": lambda share: _typeset(text.percent(share)),
    "duration": lambda seconds: _typeset(text.duration(seconds)),
    "breakable": _breakable,
}
FUNCTIONS = ("number", "percent", "duration")
"""Filters that templates also pass to a macro as functions."""


@functools.cache
def _environment() -> Environment:
    loader = PackageLoader("adapruner.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, _, _ = loader.get_source(environment, "report.css")
    environment.filters |= FILTERS
    environment.globals |= {name: FILTERS[name] for name in FUNCTIONS}
    environment.globals |= {"model_names": MODEL_NAMES, "style": Markup(style)}
    return environment
