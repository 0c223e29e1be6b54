"""ZenML's own Schedule, on stacks whose orchestrator takes one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import mistake
from pipelines.schedules.timetable import Timetable

INSTEAD = (
    "use `adapruner schedule install` (systemd or cron), `adapruner recompress --watch`, "
    "or `adapruner schedule manifest` (Kubernetes)"
)


def schedule(name: str, values: dict[str, Any], when: Timetable) -> str:
    """Give the active stack's orchestrator a schedule of the compression `values`; its stack.

    `values` is the content of a file of `adapruner compress`. What is unchanged since the run
    before is cached, so a run whose source's alias has not moved is short. Raises UserError for a
    stack that takes no schedule.
    """
    from zenml.client import Client
    from zenml.config.schedule import Schedule

    from pipelines.compress import compress

    stack = Client().active_stack
    orchestrator = stack.orchestrator
    if not orchestrator.config.is_schedulable:
        raise mistake(
            f"the orchestrator of the active ZenML stack '{stack.name}' ({orchestrator.flavor}) "
            f"takes no schedule; {INSTEAD}"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.yaml")
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        timed = Schedule(name=f"adapruner-{name}", cron_expression=when.cron)
        compress.with_options(config_path=str(file), schedule=timed)()
    return str(stack.name)
