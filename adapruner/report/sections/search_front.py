"""The front of a search of several objectives: a picture of the first two, and a table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from adapruner.report.format import named_numbers
from adapruner.report.svg import (
    COLOURS,
    Tips,
    add_tip,
    chart,
    is_wide,
    mark,
    mark_selected,
    scale_values,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {
    "perplexity": "held-out perplexity",
    "kl": "held-out KL divergence, nats per token",
    "margin": "held-out margin loss",
}
"""Objective -> the label of its axis."""
SHORT_AXES = {"kl": "held-out KL, nats per token"}
"""The labels of the narrow drawing, where they differ."""
FAINT = 0.45
"""Opacity of trials that another one dominates."""

Search = Mapping[str, Any]
Trials = Sequence[Mapping[str, Any]]


def front_view(search: Search) -> dict[str, Any] | None:
    """The picture and the trials of the front; None for a single objective."""
    if len(search["objectives"]) == 1:
        return None
    return {"chart": front_chart(search), "trials": _on_front(search, _candidates(search))}


def front_chart(search: Search) -> Markup:
    """The held-out values of the candidates in the first two objectives."""

    def draw(axes: Axes) -> Tips:
        candidates = _candidates(search)
        columns = [[t["held_out"][name] for t in candidates] for name in search["objectives"][:2]]
        front = _on_front(search, candidates)
        if len(search["objectives"]) == 2:
            _draw_boundary(axes, [_point(search, trial) for trial in front])
        tips = _draw_candidates(axes, search, candidates, {trial["number"] for trial in front})
        best = next(t for t in candidates if t["number"] == search["best"]["number"])
        mark_selected(axes, *_point(search, best))
        _label(axes, search["objectives"], columns)
        return tips

    return chart("front", "Held-out values of the candidates and their Pareto front", draw)


def _candidates(search: Search) -> Trials:
    """The trials with held-out values."""
    return [trial for trial in search["trials"] if trial["held_out"] is not None]


def _on_front(search: Search, candidates: Trials) -> list[Mapping[str, Any]]:
    """The candidates on the front, by their value of the first objective."""
    numbers, first = search["held_out"]["front"], search["objectives"][0]
    front = [trial for trial in candidates if trial["number"] in numbers]
    return sorted(front, key=lambda trial: trial["held_out"][first])


def _point(search: Search, trial: Mapping[str, Any]) -> tuple[float, float]:
    first, second = search["objectives"][:2]
    return trial["held_out"][first], trial["held_out"][second]


def _draw_boundary(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """The lower left boundary of what the front dominates."""
    style: dict[str, Any] = {"linewidth": 1.5, "zorder": 1}
    axes.step(*zip(*points, strict=True), where="post", color=COLOURS["muted"], **style)


def _draw_candidates(axes: Axes, search: Search, candidates: Trials, front: set[int]) -> Tips:
    tips: Tips = {}
    warm = {start["number"] for start in search["warm_starts"]}
    for trial in sorted(candidates, key=lambda trial: trial["number"] in front):  # front on top
        number = trial["number"]
        marker, colour = ("D", "warm") if number in warm else ("o", "accent")
        artist = mark(axes, *_point(search, trial), colour, marker)
        artist.set_alpha(1.0 if number in front else FAINT)
        add_tip(tips, artist, f"{trial['name']} {number}: {named_numbers(trial['held_out'])}")
    return tips


def _label(axes: Axes, names: Sequence[str], columns: Sequence[Sequence[float]]) -> None:
    labels = AXES if is_wide(axes) else AXES | SHORT_AXES
    axes.grid(True, axis="both")
    axes.set_xlabel(labels[names[0]])
    axes.set_ylabel(labels[names[1]])
    scale_values(axes, columns[0], "x")
    scale_values(axes, columns[1], "y")
