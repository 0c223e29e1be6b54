"""Search: the value of every trial, on held-out text too, and the importance of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from adapruner.report.format import number
from adapruner.report.results import Report
from adapruner.report.rows import bars
from adapruner.report.sections.base import Inputs, Section
from adapruner.report.svg import COLOURS, Tips, add_tip, chart, mark, scale_values, whole_numbers

OBJECTIVES = {
    "perplexity": "perplexity on the objective text",
    "kl": "mean KL divergence from the dense model on the objective text, nats per token",
    "margin": "negative mean margin of the right choice on the objective rows, nats",
}
"""Objective of the search -> the quantity that its values are, lower is better."""

POOL = "filter_calibration_pool"
"""The stage of the pool."""

Search = Mapping[str, Any]


def view(report: Report) -> dict[str, Any] | None:
    """The trials and what they show; None where no trial has a finite value."""
    search = report["search"]
    if all(trial["value"] is None for trial in search["trials"]):
        return None
    return {
        "objective": OBJECTIVES.get(search["objective"], search["objective"]),
        "search": search,
        "chart": history_chart(search),
        "best_start": best_warm_start(search),
        "held_out_chart": held_out_chart(search),
        "held_out": held_out_values(search),
        "importance": bars(search["importance"]),
        "stopped": sum(trial["state"] == "stopped" for trial in search["trials"]),
        "mix": mix_rows(search["mix"]),
    }


def mix_rows(mix: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Name, value and share of the largest value of each domain, by use, for tables of bars."""
    return [{"use": use, "rows": bars(shares)} for use, shares in mix.items() if shares]


def best_warm_start(search: Search) -> Mapping[str, Any] | None:
    """The warm start with the lowest value, which shows what the search itself contributes."""
    evaluated = [start for start in search["warm_starts"] if start["value"] is not None]
    return min(evaluated, key=lambda start: start["value"], default=None)


def held_out_values(search: Search) -> list[tuple[str, str]]:
    """The values on held-out text as pairs of a name and a number."""
    held_out = search["held_out"]
    if held_out is None:
        return []
    values = {"dense model": held_out["dense_value"], "selected trial": held_out["value"]}
    values |= {f"warm start {name}": v for name, v in held_out["warm_starts"].items()}
    return [(name, number(value)) for name, value in values.items()]


def history_chart(search: Search) -> Markup:
    """The value of each trial, the best so far, the warm starts and the dense model's value.

    Trials without a finite value are left out; at least one has one.
    """
    trials = [trial for trial in search["trials"] if trial["value"] is not None]
    best, dense_value = search["best"], search["dense_value"]
    warm = {start["number"] for start in search["warm_starts"]}

    def draw(axes: Axes) -> Tips:
        values = [trial["value"] for trial in trials]
        _draw_best_so_far(axes, trials)
        tips = _draw_trials(axes, trials, warm)
        if best["value"] is not None:
            (ring,) = axes.plot(best["number"], best["value"], "o", markersize=15, color="none")
            ring.set(markeredgecolor=COLOURS["accent"], markeredgewidth=2)
        if dense_value is not None:
            style: dict[str, Any] = {"linewidth": 1.5, "dashes": (4, 4), "zorder": 1}
            axes.axhline(dense_value, color=COLOURS["muted"], **style)
            values.append(dense_value)
        scale_values(axes, values)
        axes.set_xlabel("trial")
        axes.set_xlim(trials[0]["number"] - 0.7, trials[-1]["number"] + 0.7)
        whole_numbers(axes)
        return tips

    return chart("search", "Objective of each trial of the search", draw)


def held_out_chart(search: Search) -> Markup | None:
    """Value on the objective text against that on held-out text; None for less than two trials."""
    trials = [
        trial for trial in search["trials"] if None not in (trial["value"], trial["held_out"])
    ]
    if len(trials) < 2:
        return None

    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        for trial in trials:
            colour = "accent" if trial["number"] == search["best"]["number"] else "quiet"
            artist = mark(axes, trial["value"], trial["held_out"], colour)
            values = f"{number(trial['value'])} in the search, {number(trial['held_out'])} held out"
            add_tip(tips, artist, f"{trial['name']} {trial['number']}: {values}")
        axes.grid(True, axis="both")
        axes.set_xlabel("value on the objective text")
        axes.set_ylabel("value on held-out text")
        return tips

    return chart("held-out", "Objective text against held-out text", draw)


def _draw_best_so_far(axes: Axes, trials: Sequence[Mapping[str, Any]]) -> None:
    lowest = [min(trial["value"] for trial in trials[: i + 1]) for i in range(len(trials))]
    numbers = [trial["number"] for trial in trials]
    axes.step(numbers, lowest, where="post", color=COLOURS["accent"], linewidth=2.2, zorder=2)


def _draw_trials(axes: Axes, trials: Sequence[Mapping[str, Any]], warm: set[int]) -> Tips:
    tips: Tips = {}
    for trial in sorted(trials, key=lambda trial: trial["number"] in warm):  # warm starts on top
        marker, colour = ("D", "warm") if trial["number"] in warm else ("o", "quiet")
        artist = mark(axes, trial["number"], trial["value"], colour, marker)
        add_tip(tips, artist, f"{trial['name']} {trial['number']}: {number(trial['value'])}")
    return tips


def _search(inputs: Inputs) -> dict[str, Any]:
    """The summary of the search, its trials and the importance of its parameters."""
    from adapruner.search.parameter_importance import parameter_importance
    from adapruner.search.results import SearchResult, Trials

    directory = inputs.stages["search"]
    result = SearchResult.read(directory)
    trials = Trials.read(directory).model_dump(mode="json")["trials"]
    warm = [trial for trial in trials if trial["name"] in result.warm_starts]
    return {
        **result.model_dump(mode="json"),
        "warm_starts": [{key: t[key] for key in ("number", "name", "value")} for t in warm],
        "trials": trials,
        "importance": parameter_importance(trials),
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
