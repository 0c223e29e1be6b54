"""A flavor of orchestrator that supports schedules."""

from __future__ import annotations

from typing import Any

from zenml.orchestrators import LocalOrchestrator
from zenml.orchestrators.local.local_orchestrator import (
    LocalOrchestratorConfig,
    LocalOrchestratorFlavor,
)


class Config(LocalOrchestratorConfig):
    @property
    def is_schedulable(self) -> bool:
        return True


class Orchestrator(LocalOrchestrator):
    def submit_pipeline(self, snapshot: Any, *_: Any, **__: Any) -> None:
        print(f"scheduled at {snapshot.schedule.cron_expression}")


class Flavor(LocalOrchestratorFlavor):
    name = "takes-schedules"
    config_class = Config
    implementation_class = Orchestrator
