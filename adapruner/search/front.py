"""The Pareto front of values of several objectives, all minimized, and the choice on it.

A value dominates another if it is as low in every objective and lower in one; the front holds those
that no other dominates. With one objective, the front is the lowest value, and so is every choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Values = tuple[float, ...]
"""One value for each objective."""


def front(values: Mapping[int, Values]) -> list[int]:
    """The numbers of the values that no other one dominates, in increasing order."""
    return sorted(
        n for n, v in values.items() if not any(_dominates(w, v) for w in values.values())
    )


def nearest_to_ideal(values: Mapping[int, Values]) -> int:
    """The number of the value nearest to the ideal point, the lowest ones of all objectives.

    It is on the front, and each objective is scaled to its range there, so that values far from the
    front do not count. Of equals the lowest number. This is compromise programming with the
    Euclidean distance (M. Zeleny, Multiple Criteria Decision Making, 1973).
    """
    points = _scaled({number: values[number] for number in front(values)})
    return min(points, key=lambda n: (math.hypot(*points[n]), n))


def best(values: Mapping[int, Values], count: int) -> list[int]:
    """At most `count` numbers: the front, then that of the others, and so on.

    Of a front that is too long, these are spread: the value nearest to the ideal point first, then
    each time the one furthest from all before it, scaled as in `nearest_to_ideal`. With one
    objective, they are the lowest values in increasing order.
    """
    rest, chosen = dict(values), list[int]()
    while rest and len(chosen) < count:
        members = {number: rest.pop(number) for number in front(rest)}
        chosen += _spread(members, count - len(chosen))
    return chosen


def _spread(values: Mapping[int, Values], count: int) -> list[int]:
    points, chosen = _scaled(values), [nearest_to_ideal(values)]
    while len(chosen) < min(count, len(points)):
        left = [n for n in sorted(points) if n not in chosen]
        # The first of equals, as `max` returns it.
        chosen.append(max(left, key=lambda n: min(math.dist(points[n], points[c]) for c in chosen)))
    return chosen


def _dominates(one: Values, other: Values) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _scaled(values: Mapping[int, Values]) -> dict[int, Values]:
    """From 0, the lowest value of an objective, to 1, the highest."""
    columns = list(zip(*values.values(), strict=True))
    lowest = [min(column) for column in columns]
    ranges = [max(column) - low or 1.0 for column, low in zip(columns, lowest, strict=True)]
    return {
        number: tuple((v - low) / size for v, low, size in zip(value, lowest, ranges, strict=True))
        for number, value in values.items()
    }
