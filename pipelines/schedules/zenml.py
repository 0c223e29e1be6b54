"""ZenML's Schedule, on stacks whose orchestrator supports one."""

from __future__ import annotations

from typing import Any

from adapruner.errors import UserError
from pipelines.local_run import configured
from pipelines.schedules.timetable import Timetable

ALTERNATIVES = (
    "use `adapruner schedule install` (systemd or cron), `adapruner recompress --watch`, "
    "or `adapruner schedule manifest` (Kubernetes)"
)


def schedule(name: str, values: dict[str, Any], when: Timetable) -> str:
    """Schedules the compression `values` on the active stack; returns the name of the stack.

    `values` is the content of a file of `adapruner compress`. Steps whose inputs are unchanged
    since the last run are cached. Raises UserError for a stack that supports no schedules.
    """
    from zenml.client import Client
    from zenml.config.schedule import Schedule

    stack = Client().active_stack
    orchestrator = stack.orchestrator
    if not orchestrator.config.is_schedulable:
        raise UserError(
            f"the orchestrator of the active ZenML stack '{stack.name}' ({orchestrator.flavor}) "
            f"supports no schedules; {ALTERNATIVES}"
        )
    zenml_schedule = Schedule(name=f"adapruner-{name}", cron_expression=when.cron)
    with configured("compress", values, schedule=zenml_schedule) as pipeline:
        pipeline()
    return str(stack.name)
