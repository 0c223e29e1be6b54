"""Rows of a table that compares the dense, the pruned and the fine-tuned model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from adapruner.report.format import MISSING

Form = Callable[[float | None], str]
Change = Callable[[float, float], str]


class Row(NamedTuple):
    """One line of the comparison, as text; `cells` are dense, pruned and fine-tuned."""

    name: str
    note: str
    cells: tuple[str, str, str]
    change: str
    good: bool | None
    """Whether the change is an improvement; None where that can't be said."""


def relative_change(dense: float, final: float) -> str:
    """`+50.0 %`."""
    return f"{100 * (final / dense - 1):+.1f} %" if dense else MISSING


def change_in_points(dense: float, final: float) -> str:
    """The difference of two shares: `-5.0 points`."""
    return f"{100 * (final - dense):+.1f} points"


def difference(dense: float, final: float) -> str:
    """`+0.400`."""
    return f"{final - dense:+.3f}"


def comparison_row(
    name: str,
    note: str,
    values: Sequence[float | None],
    form: Form,
    *,
    less_is_good: bool = True,
    change: Change = relative_change,
) -> Row:
    """The row of the dense, the pruned and, where it has a value of its own, the fine-tuned model.

    The change is that from the dense model to the last one with a value.
    """
    dense, pruned, tuned = [*values, None][:3]
    final = pruned if tuned is None else tuned
    cells = (form(dense), form(pruned), form(tuned))
    if dense is None or final is None:
        return Row(name, note, cells, MISSING, None)
    good = None if final == dense else (final < dense) == less_is_good
    return Row(name, note, cells, change(dense, final), good)


def bars(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Name, value and share of the largest value, for a table of bars."""
    largest = max(values.values(), default=0) or 1
    return [
        {"name": name, "value": value, "share": value / largest} for name, value in values.items()
    ]
