"""Search: the value of every trial, on held-out text too, and the importance of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from adapruner.report.format import named_numbers, number
from adapruner.report.results import Report
from adapruner.report.rows import bars
from adapruner.report.sections.base import Inputs, Section
from adapruner.report.sections.search_front import front_view
from adapruner.report.svg import (
    COLOURS,
    Tips,
    add_tip,
    chart,
    mark,
    mark_selected,
    scale_values,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OBJECTIVES = {
    "perplexity": "perplexity on the objective text",
    "kl": "mean KL divergence from the dense model on the objective text, nats per token",
    "margin": "mean margin loss on the objective rows, from -1 to 1",
}
"""Objective of the search -> the quantity that its values are, lower is better."""

POOL = "filter_calibration_pool"
"""The stage of the pool."""

Search = Mapping[str, Any]


def view(report: Report) -> dict[str, Any] | None:
    """The trials and what they show; None where no trial has a finite value."""
    search = report["search"]
    shown = [name for name in search["objectives"] if _with_value(search, name)]
    if not shown:
        return None
    return {
        "objectives": [objective_view(search, name) for name in shown],
        "search": search,
        "front": front_view(search),
        "best_start": best_warm_start(search),
        "held_out": held_out_values(search),
        "stopped": sum(trial["state"] == "stopped" for trial in search["trials"]),
        "mix": mix_rows(search["mix"]),
    }


def objective_view(search: Search, name: str) -> dict[str, Any]:
    """What the trials show of one objective."""
    return {
        "name": name,
        "quantity": OBJECTIVES.get(name, name),
        "chart": history_chart(search, name),
        "held_out_chart": held_out_chart(search, name),
        "importance": bars(search["importance"][name]),
    }


def mix_rows(mix: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Name, value and share of the largest value of each domain, by use, for tables of bars."""
    return [{"use": use, "rows": bars(shares)} for use, shares in mix.items() if shares]


def best_warm_start(search: Search) -> Mapping[str, Any] | None:
    """The warm start with the lowest value of the only objective, which a search improves on."""
    name, *others = search["objectives"]
    evaluated = [start for start in search["warm_starts"] if start["values"][name] is not None]
    return None if others else min(evaluated, key=lambda start: start["values"][name], default=None)


def held_out_values(search: Search) -> list[tuple[str, str]]:
    """The values on held-out text as pairs of a name and a text."""
    held_out = search["held_out"]
    if held_out is None:
        return []
    values = {"dense model": held_out["dense_values"], "selected trial": held_out["values"]}
    values |= {f"warm start {name}": v for name, v in held_out["warm_starts"].items()}
    return [(name, named_numbers(value)) for name, value in values.items()]


def history_chart(search: Search, name: str) -> Markup:
    """An objective's value of each trial, the lowest so far, the warm starts and the dense model's.

    Trials without a finite value are left out; at least one has one.
    """
    points = [(t["number"], t["values"][name]) for t in _with_value(search, name)]
    best, dense_value = search["best"], search["dense_values"][name]

    def draw(axes: Axes) -> Tips:
        values = [value for _, value in points]
        _draw_best_so_far(axes, points)
        tips = _draw_trials(axes, search, name)
        if best["values"][name] is not None:
            mark_selected(axes, best["number"], best["values"][name])
        if dense_value is not None:
            style: dict[str, Any] = {"linewidth": 1.5, "dashes": (4, 4), "zorder": 1}
            axes.axhline(dense_value, color=COLOURS["muted"], **style)
            values.append(dense_value)
        scale_values(axes, values)
        axes.set_xlabel("trial")
        axes.set_xlim(points[0][0] - 0.7, points[-1][0] + 0.7)
        whole_numbers(axes)
        return tips

    return chart(f"search-{_index(search, name)}", f"{name} of each trial of the search", draw)


def held_out_chart(search: Search, name: str) -> Markup | None:
    """Value on the objective text against that on held-out text; None for less than two trials."""
    points = [
        (trial, trial["values"][name], trial["held_out"][name])
        for trial in _with_value(search, name)
        if trial["held_out"] is not None and trial["held_out"][name] is not None
    ]
    if len(points) < 2:
        return None

    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        for trial, value, held_out in points:
            colour = "accent" if trial["number"] == search["best"]["number"] else "quiet"
            artist = mark(axes, value, held_out, colour)
            values = f"{number(value)} in the search, {number(held_out)} held out"
            add_tip(tips, artist, f"{trial['name']} {trial['number']}: {values}")
        axes.grid(True, axis="both")
        axes.set_xlabel("value on the objective text")
        axes.set_ylabel("value on held-out text")
        return tips

    label = f"{name}: objective text against held-out text"
    return chart(f"held-out-{_index(search, name)}", label, draw)


def _index(search: Search, name: str) -> int:
    """For the name of a chart: that of an objective with weights has blanks."""
    return list(search["objectives"]).index(name)


def _with_value(search: Search, name: str) -> list[Mapping[str, Any]]:
    """The trials with a finite value of an objective."""
    return [trial for trial in search["trials"] if trial["values"][name] is not None]


def _draw_best_so_far(axes: Axes, points: Sequence[tuple[int, float]]) -> None:
    numbers, values = zip(*points, strict=True)
    lowest = list(accumulate(values, min))
    axes.step(numbers, lowest, where="post", color=COLOURS["accent"], linewidth=2.2, zorder=2)


def _draw_trials(axes: Axes, search: Search, name: str) -> Tips:
    tips: Tips = {}
    warm = {start["number"] for start in search["warm_starts"]}
    trials = _with_value(search, name)
    for trial in sorted(trials, key=lambda trial: trial["number"] in warm):  # warm starts on top
        marker, colour = ("D", "warm") if trial["number"] in warm else ("o", "quiet")
        artist = mark(axes, trial["number"], trial["values"][name], colour, marker)
        text = f"{trial['name']} {trial['number']}: {number(trial['values'][name])}"
        add_tip(tips, artist, text)
    return tips


def _search(inputs: Inputs) -> dict[str, Any]:
    """The summary of the search, its trials and the importance of its parameters by objective."""
    from adapruner.search.parameter_importance import parameter_importance
    from adapruner.search.results import SearchResult, Trials

    directory = inputs.stages["search"]
    result = SearchResult.read(directory)
    trials = Trials.read(directory).model_dump(mode="json")["trials"]
    warm = [trial for trial in trials if trial["name"] in result.warm_starts]
    return {
        **result.model_dump(mode="json"),
        "warm_starts": [{key: t[key] for key in ("number", "name", "values")} for t in warm],
        "trials": trials,
        "importance": {name: parameter_importance(trials, name) for name in result.objectives},
        "mix": _mix(inputs),
    }


def _mix(inputs: Inputs) -> dict[str, dict[str, float]]:
    """Use -> domain -> its share, in the plan's scores and in its update."""
    from adapruner.data.pool import PoolSummary
    from adapruner.pruning.plan import PruningPlan

    plan = PruningPlan.read(inputs.stages["search"])
    recipe = plan.provenance.get("recipe", {})
    shares = {"scores": recipe.get("shares", ()), "update": plan.update.shares}
    if not any(shares.values()):
        return {}
    names = [domain.name for domain in PoolSummary.read(inputs.stages[POOL]).domains]
    return {use: dict(zip(names, values, strict=True)) for use, values in shares.items() if values}


SECTION = Section("search", "Search", view, "search.html.j2", {"search": _search})
