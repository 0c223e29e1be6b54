"""Settings that name an implementation, and the tables that list the implementations.

A table lies in the folder of its implementations and imports neither torch nor Transformers, so
that a configuration is validated at once. `docs/extending.md` shows how to add a row to each.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from adapruner.config.parsing import nearest

METRIC, RECONSTRUCTION, RECOVERY = "importance metric", "reconstruction method", "recovery method"

_TABLES = {
    METRIC: ("adapruner.importance.metrics", "METRICS"),
    RECONSTRUCTION: ("adapruner.pruning.reconstruction", "METHODS"),
    RECOVERY: ("adapruner.recovery", "METHODS"),
}


def table(what: str) -> Mapping[str, Any]:
    """Name -> implementation, for one of the kinds above, in the order of registration."""
    module, name = _TABLES[what]
    found: Mapping[str, Any] = getattr(import_module(module), name)
    return found


def one_of(what: str, *others: str) -> Any:
    """The type of a setting that takes a name of the table `what`, or one of `others`."""

    def check(name: str) -> str:
        known = [*others, *table(what)]
        if name not in known:
            raise ValueError(f"no such {what}{nearest(name, known)}")
        return name

    return Annotated[str, AfterValidator(check), WithJsonSchema({"type": "string", "table": what})]
