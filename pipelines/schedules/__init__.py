"""Passes of `adapruner recompress` at set times.

A scheduler of this machine is a module with the functions of `Scheduler` and a line in
`SCHEDULERS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from adapruner.errors import UserError

if TYPE_CHECKING:
    from pipelines.schedules.scheduled_pass import InstalledSchedule, ScheduledPass

SCHEDULERS = {
    "systemd": "pipelines.schedules.systemd",
    "crontab": "pipelines.schedules.crontab",
}
"""Name -> module, the preferred one first."""


class Scheduler(Protocol):
    """The functions of a scheduler's module. `name` is the name of a schedule."""

    def available(self) -> bool:
        """Whether the scheduler runs on this machine."""

    def preview(self, schedule: ScheduledPass) -> str:
        """What `install` would write. Raises UserError if the scheduler can't hold the schedule."""

    def install(self, schedule: ScheduledPass) -> str:
        """Writes the schedule, replacing one of the same name; returns what the user does next.

        Raises UserError if it can't be written.
        """

    def remove(self, name: str) -> bool:
        """Removes a schedule; returns whether there was one. A running pass goes on."""

    def installed(self) -> list[InstalledSchedule]:
        """The schedules that `install` wrote."""


def scheduler(name: str) -> Scheduler:
    """The scheduler `name` of `SCHEDULERS`."""
    return cast(Scheduler, import_module(SCHEDULERS[name]))


def default_scheduler() -> str:
    """The name of the first scheduler that runs here. Raises UserError if none does."""
    for name in SCHEDULERS:
        if scheduler(name).available():
            return name
    raise UserError(
        f"no scheduler runs here ({', '.join(SCHEDULERS)}); use `adapruner recompress --watch`, or "
        f"--with {next(iter(SCHEDULERS))} to write the schedule for later"
    )
