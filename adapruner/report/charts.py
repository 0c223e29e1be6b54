"""The charts of a run: search, importance and held-out scores, widths, recovery, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from adapruner.report.svg import COLOURS, Tips, both, is_wide, scale, tip
from adapruner.report.format import number

STRUCTURES = {
    "MLP channels": ("mlp_width", "mlp_dense_width"),
    "query heads": ("query_heads", "query_dense_heads"),
    "KV groups": ("kv_groups", "kv_dense_groups"),
}
"""Structure as people call it -> a layer's fields of what is kept and what there was."""

FAINTEST = 0.12
"""Opacity of the cell that keeps least; one that keeps all is opaque."""
TOLD_LAYERS = 34
"""Up to this many layers a cell of the wide heat map has room for its number."""


class Interval(NamedTuple):
    """A value with the bounds of its doubt, drawn as a mark on a whisker."""

    value: float
    low: float
    high: float
    told: str


def search_history(search: Mapping[str, Any]) -> Markup | None:
    """Value of each trial, the best so far, the warm starts, the dense model's value as a line.

    Trials without a value are left out; None where no trial has one.
    """
    trials = [t for t in search["trials"] if t.get("value") is not None]
    if not trials:
        return None

    def draw(axes: Axes) -> Tips:
        return _draw_search(axes, trials, search["dense_value"], search["best"])

    return both("search", "Objective of each trial of the search", draw)


def held_out(search: Mapping[str, Any]) -> Markup | None:
    """Search score against the score on held-out text; None for fewer than two such trials."""
    found = [
        t for t in search["trials"] if None not in (t.get("value"), t.get("held_out"))
    ]  # fmt: skip
    if len(found) < 2:
        return None

    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        taken = (search["best"] or {}).get("number")
        for trial in found:
            told = f"{trial.get('name')} {trial['number']}: {number(trial['value'])} searched, "
            colour = "accent" if trial["number"] == taken else "quiet"
            told += f"{number(trial['held_out'])} held out"
            tip(tips, _mark(axes, trial["value"], trial["held_out"], colour), told)
        axes.grid(True, axis="both")
        axes.set_xlabel("search score")
        axes.set_ylabel("score on held-out text")
        return tips

    return both("held-out", "Search score against the score on held-out text", draw)


def heat_map(plan: Mapping[str, Any]) -> Markup | None:
    """Layers across, structures down: the stronger a cell, the more is kept; None without layers.

    The scale runs from the least share that any cell keeps, faint, to the whole.
    """
    layers = plan["layers"]
    if not layers:
        return None

    def draw(axes: Axes) -> Tips:
        return _draw_heat(axes, layers)

    return both("widths", "Share of each structure that each layer keeps", draw, height=190)


def layer_losses(search: Mapping[str, Any]) -> Markup | None:
    """What cutting each layer alone costs, a line for each share that is removed; None if unknown.

    The more is removed, the stronger the line.
    """
    known = search.get("layer_losses")
    if not known:
        return None

    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        layers = range(len(known["losses"]))
        for position, removed in enumerate(known["removed"]):
            losses = [row[position] for row in known["losses"]]
            strength = (position + 1) / len(known["removed"])
            axes.plot(layers, losses, color=COLOURS["accent"], linewidth=2, alpha=strength)
            for layer, loss in zip(layers, losses, strict=True):
                mark = _mark(axes, layer, loss, "accent", width=5)
                mark.set_alpha(strength)
                tip(tips, mark, f"layer {layer} without {removed:.0%}: {number(loss)} nats a token")
        scale(axes, [max(loss, 1e-6) for row in known["losses"] for loss in row])
        axes.set_xlabel("layer")
        axes.set_ylabel("nats a token")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return tips

    return both("layer-losses", "Divergence from the dense model with one layer cut", draw)


def least_kept(plan: Mapping[str, Any]) -> float:
    """The least share of a structure that a layer keeps; 1 where nothing was cut."""
    return min((s for layer in plan["layers"] for s in _shares(layer).values()), default=1.0)


def loss(curve: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Training loss of each step, its running mean, and the loss on held-out text where measured.

    None for fewer than two steps.
    """
    points = [(p["step"], p["loss"]) for p in curve if p.get("loss") is not None]
    unseen = [(p["step"], p["held_out"]) for p in curve if p.get("held_out") is not None]
    if len(points) < 2:
        return None

    def draw(axes: Axes) -> Tips:
        return _draw_loss(axes, points, unseen)

    return both("loss", "Training loss of each fine-tuning step", draw)


def intervals(
    name: str, label: str, rows: Mapping[str, Mapping[str, Interval]], colours: Mapping[str, str]
) -> Markup | None:
    """Rows of marks on whiskers around a line at 1, as percentages; None without rows.

    `rows` is row -> series -> interval, `colours` series -> a name of COLOURS.
    """
    if not rows:
        return None

    def draw(axes: Axes) -> Tips:
        return _draw_intervals(axes, rows, colours)

    return both(name, label, draw, height=64 + 34 * len(rows))


def _mark(axes: Axes, x: float, y: float, colour: str, marker: str = "o", width: float = 8) -> Any:
    (mark,) = axes.plot(x, y, marker, color=COLOURS[colour], markersize=width)
    mark.set(markeredgecolor=COLOURS["paper"], markeredgewidth=1.2, zorder=3)
    return mark


def _draw_search(
    axes: Axes,
    trials: Sequence[Mapping[str, Any]],
    dense_value: float | None,
    taken: Mapping[str, Any] | None,
) -> Tips:
    tips: Tips = {}
    at, values = [t["number"] for t in trials], [t["value"] for t in trials]
    best_so_far = [min(values[: i + 1]) for i in range(len(values))]
    axes.step(at, best_so_far, where="post", color=COLOURS["accent"], linewidth=2.2, zorder=2)
    for warm, marker, colour in ((False, "o", "quiet"), (True, "D", "warm")):
        for trial in (t for t in trials if (t.get("name", "trial") != "trial") == warm):
            mark = _mark(axes, trial["number"], trial["value"], colour, marker)
            tip(tips, mark, f"{trial.get('name')} {trial['number']}: {number(trial['value'])}")
    if taken:
        (ring,) = axes.plot(taken["number"], taken["value"], "o", markersize=15, color="none")
        ring.set(markeredgecolor=COLOURS["accent"], markeredgewidth=2)
    if dense_value is not None:
        axes.axhline(dense_value, color=COLOURS["muted"], linewidth=1.5, dashes=(4, 4), zorder=1)
    scale(axes, [*values, *([dense_value] if dense_value is not None else [])])
    axes.set_xlabel("trial")
    axes.set_xlim(min(at) - 0.7, max(at) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return tips


def _shares(layer: Mapping[str, Any]) -> dict[str, float]:
    return {name: layer[kept] / layer[dense] for name, (kept, dense) in STRUCTURES.items()}


def _draw_heat(axes: Axes, layers: Sequence[Mapping[str, Any]]) -> Tips:
    tips: Tips = {}
    least = least_kept({"layers": layers})
    is_told = is_wide(axes) and len(layers) <= TOLD_LAYERS
    for column, layer in enumerate(layers):
        for row, (name, share) in enumerate(_shares(layer).items()):
            strength = (share - least) / (1 - least) if least < 1 else 1.0
            opacity = FAINTEST + (1 - FAINTEST) * strength
            cell = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, linewidth=0)
            cell.set(facecolor=COLOURS["accent"], alpha=round(opacity, 2))
            axes.add_patch(cell)
            kept, dense = (layer[field] for field in STRUCTURES[name])
            note = ", protected" if layer["protected"] else ""
            tip(tips, cell, f"layer {layer['layer']}: {kept} of {dense} {name}{note}")
            if is_told:
                ink = "paper" if opacity > 0.65 else "ink"
                style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 10}
                axes.text(column, row, f"{100 * share:.0f}", color=COLOURS[ink], **style)
        if layer["protected"]:
            axes.plot(column, -0.75, ".", color=COLOURS["muted"], markersize=5)
    axes.set_ylim(len(STRUCTURES) - 0.4, -1)
    axes.set_xlim(-0.7, len(layers) - 0.3)
    axes.set_yticks(range(len(STRUCTURES)), list(STRUCTURES))
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12 if is_wide(axes) else 6))
    return tips


def _draw_loss(
    axes: Axes, points: Sequence[tuple[int, float]], unseen: Sequence[tuple[int, float]]
) -> Tips:
    steps, losses = [step for step, _ in points], [value for _, value in points]
    window = max(1, len(losses) // 12)
    mean = [_mean(losses[max(0, i - window) : i + window + 1]) for i in range(len(losses))]
    axes.plot(steps, losses, color=COLOURS["quiet"], linewidth=1.2, alpha=0.7)
    axes.plot(steps, mean, color=COLOURS["accent"], linewidth=2.2)
    tips: Tips = {}
    axes.plot(*zip(*unseen, strict=True) if unseen else ((), ()), color=COLOURS["warm"])
    for step, value in unseen:
        mark = _mark(axes, step, value, "warm", "D", 7)
        tip(tips, mark, f"step {step}: {number(value)} on held-out text")
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return tips


def _draw_intervals(
    axes: Axes, rows: Mapping[str, Mapping[str, Interval]], colours: Mapping[str, str]
) -> Tips:
    tips: Tips = {}
    gap = 0.26
    axes.axvline(1, color=COLOURS["muted"], linewidth=1.5, dashes=(4, 4), zorder=1)
    for at, (name, row) in enumerate(rows.items()):
        for place, (series, interval) in enumerate(row.items()):
            y = at + gap * (place - (len(row) - 1) / 2)
            colour = colours[series]
            bounds = [interval.low, interval.high]
            axes.plot(bounds, [y, y], color=COLOURS[colour], linewidth=2.2, alpha=0.55)
            marker = "D" if colour == "warm" else "o"
            tip(tips, _mark(axes, interval.value, y, colour, marker), f"{name}: {interval.told}")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if is_wide(axes) else 3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    return tips


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
