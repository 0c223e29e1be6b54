"""ZenML's Schedule, on stacks whose orchestrator supports one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from adapruner.errors import UserError
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

    from pipelines.compress import compress

    stack = Client().active_stack
    orchestrator = stack.orchestrator
    if not orchestrator.config.is_schedulable:
        raise UserError(
            f"the orchestrator of the active ZenML stack '{stack.name}' ({orchestrator.flavor}) "
            f"supports no schedules; {ALTERNATIVES}"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.yaml")
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        zenml_schedule = Schedule(name=f"adapruner-{name}", cron_expression=when.cron)
        compress.with_options(config_path=str(file), schedule=zenml_schedule)()
    return str(stack.name)
