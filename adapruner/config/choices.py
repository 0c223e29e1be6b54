"""Settings that name an implementation, and the tables that list the implementations.

A table lies in the folder of its implementations and imports neither torch nor Transformers, so
that a configuration is validated at once. `docs/extending.md` shows how to add a row to each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic import AfterValidator, GetCoreSchemaHandler

from adapruner.config.parsing import nearest

METRIC, RECONSTRUCTION, RECOVERY = "importance metric", "reconstruction method", "recovery method"
PLANNER, EXPORT = "planner", "export format"

_TABLES = {
    METRIC: ("adapruner.importance.metrics", "METRICS"),
    PLANNER: ("adapruner.search", "PLANNERS"),
    RECONSTRUCTION: ("adapruner.pruning.reconstruction", "METHODS"),
    RECOVERY: ("adapruner.recovery", "METHODS"),
    EXPORT: ("adapruner.export", "FORMATS"),
}


def table(what: str) -> Mapping[str, Any]:
    """Name -> implementation, for one of the kinds above, in the order of registration."""
    module, name = _TABLES[what]
    implementations: Mapping[str, Any] = getattr(import_module(module), name)
    return implementations


@dataclass(frozen=True)
class OneOf:
    """Annotates a text setting that takes a name of the table `what`, or one of `others`."""

    what: str
    others: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The names that the setting takes."""
        return [*self.others, *table(self.what)]

    def check(self, name: str) -> str:
        """`name`. Raises ValueError with the nearest name for any other."""
        if name not in self.names():
            raise ValueError(f"no such {self.what}{nearest(name, self.names())}")
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return AfterValidator(self.check).__get_pydantic_core_schema__(source, handler)
