"""Examples: continuations of prompts by each model, and the rows of the tasks that changed."""

from __future__ import annotations

from typing import Any

from adapruner.report.results import Report, distinct_models
from adapruner.report.sections.base import Section
from adapruner.report.sections.quality import tasks


def view(report: Report) -> dict[str, Any] | None:
    """The continuations and the changed rows; None where there is neither."""
    behaviour = report.get("behaviour") or {"continuations": [], "new_tokens": 0}
    tasks_of_report = tasks(report)
    if not behaviour["continuations"] and not tasks_of_report:
        return None
    return {
        "continuations": behaviour["continuations"],
        "new_tokens": behaviour["new_tokens"],
        "models": distinct_models(report),
        "tasks": tasks_of_report,
    }


SECTION = Section("examples", "Examples", view, "examples.html.j2")
