"""The page's charts: static SVG whose colours are the page's own CSS variables.

Each chart is drawn twice, for a wide and for a narrow screen, and the style sheet shows one: a
drawing scaled down to a phone could not be read. A drawing unit is one CSS pixel.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from adapruner.report_text import number

SIZES = {"wide": (820, 300), "narrow": (340, 250)}
"""Variant -> width and height, CSS pixels."""

COLOURS = {
    "ink": "#a10001",
    "muted": "#a10002",
    "line": "#a10003",
    "track": "#a10004",
    "accent": "#a10005",
    "warm": "#a10006",
    "quiet": "#a10007",
    "paper": "#a10008",
}
"""Variable of the style sheet -> the stand-in that is drawn with and then replaced by it."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 12,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 1,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.major.size": 0,
    "text.color": COLOURS["ink"],
    "lines.solid_capstyle": "round",
}

WIDE_RANGE = 4.0
"""Largest over smallest value from which a logarithmic axis is the readable one."""

Tips = dict[str, str]
"""Name of a drawn mark -> what it says when pointed at."""


def search_history(search: Mapping[str, Any]) -> Markup | None:
    """Value of each trial, the best so far, the warm starts, the dense model's value as a line.

    Trials without a value are left out; None where no trial has one.
    """
    trials = [t for t in search["trials"] if t.get("value") is not None]
    if not trials:
        return None

    def draw(axes: Axes) -> Tips:
        return _draw_search(axes, trials, search["dense_value"])

    return _both("search", "Objective of each trial of the search", draw)


def widths(plan: Mapping[str, Any], key: str, dense_key: str, label: str) -> Markup | None:
    """Structures kept in each layer as bars before the dense width; None without layers.

    `key` is the layers' field to draw, `dense_key` that of its value before pruning.
    """
    if not plan["layers"]:
        return None

    def draw(axes: Axes) -> Tips:
        return _draw_widths(axes, plan["layers"], key, dense_key, label)

    return _both(key, f"{label} kept in each layer", draw)


def loss(curve: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Training loss of each step and its running mean; None for fewer than two steps."""
    points = [(p["step"], p["loss"]) for p in curve if p.get("loss") is not None]
    if len(points) < 2:
        return None

    def draw(axes: Axes) -> Tips:
        return _draw_loss(axes, points)

    return _both("loss", "Training loss of each fine-tuning step", draw)


def _draw_search(
    axes: Axes, trials: Sequence[Mapping[str, Any]], dense_value: float | None
) -> Tips:
    tips: Tips = {}
    at, values = [t["number"] for t in trials], [t["value"] for t in trials]
    best_so_far = [min(values[: i + 1]) for i in range(len(values))]
    axes.step(at, best_so_far, where="post", color=COLOURS["accent"], linewidth=2.2, zorder=2)
    for warm, marker, colour, width in ((False, "o", "quiet", 8), (True, "D", "warm", 8)):
        for trial in (t for t in trials if (t.get("name", "trial") != "trial") == warm):
            (mark,) = axes.plot(
                trial["number"], trial["value"], marker, color=COLOURS[colour], markersize=width
            )
            mark.set(markeredgecolor=COLOURS["paper"], markeredgewidth=1.2, zorder=3)
            _tip(tips, mark, f"{trial.get('name')} {trial['number']}: {number(trial['value'])}")
    best = min(trials, key=lambda t: t["value"])
    (ring,) = axes.plot(best["number"], best["value"], "o", markersize=15, color="none")
    ring.set(markeredgecolor=COLOURS["accent"], markeredgewidth=2)
    if dense_value is not None:
        axes.axhline(dense_value, color=COLOURS["muted"], linewidth=1.5, dashes=(4, 4), zorder=1)
    _scale(axes, [*values, *([dense_value] if dense_value is not None else [])])
    axes.set_xlabel("trial")
    axes.set_xlim(min(at) - 0.7, max(at) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return tips


def _draw_widths(
    axes: Axes, layers: Sequence[Mapping[str, Any]], key: str, dense_key: str, label: str
) -> Tips:
    tips: Tips = {}
    at, kept = [layer["layer"] for layer in layers], [layer[key] for layer in layers]
    axes.bar(at, [layer[dense_key] for layer in layers], width=0.74, color=COLOURS["track"])
    colours = [COLOURS["quiet" if layer["protected"] else "accent"] for layer in layers]
    for bar, layer in zip(axes.bar(at, kept, width=0.74, color=colours), layers, strict=True):
        note = ", protected" if layer["protected"] else ""
        _tip(tips, bar, f"layer {layer['layer']}: {layer[key]} of {layer[dense_key]} {label}{note}")
    axes.set_xlabel("layer")
    axes.set_xlim(min(at) - 0.6, max(at) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return tips


def _draw_loss(axes: Axes, points: Sequence[tuple[int, float]]) -> Tips:
    steps, losses = [step for step, _ in points], [value for _, value in points]
    window = max(1, len(losses) // 12)
    mean = [_mean(losses[max(0, i - window) : i + window + 1]) for i in range(len(losses))]
    axes.plot(steps, losses, color=COLOURS["quiet"], linewidth=1.2, alpha=0.7)
    axes.plot(steps, mean, color=COLOURS["accent"], linewidth=2.2)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return {}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis for values of very different size, so that one bad trial hides nothing."""
    low, high = min(values), max(values)
    if low > 0 and high / low > WIDE_RANGE:
        axes.set_yscale("log")
        factors = (1, 2, 5, 10) if high / low > 10 else (1, 1.5, 2, 3, 4, 5, 7, 10)
        ticks = [f * 10.0**e for e in range(-3, 12) for f in factors]
        axes.set_yticks([t for t in dict.fromkeys(ticks) if low / 1.1 <= t <= high * 1.1])
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_tick_params(which="minor", size=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))


def _tip(tips: Tips, artist: Any, text: str) -> None:
    name = f"tip{len(tips)}"
    artist.set_gid(name)
    tips[name] = text


def _both(name: str, label: str, draw: Callable[[Axes], Tips]) -> Markup:
    drawings = (_svg(f"{name}-{variant}", variant, label, draw) for variant in SIZES)
    return Markup("\n").join(drawings)


def _svg(salt: str, variant: str, label: str, draw: Callable[[Axes], Tips]) -> Markup:
    """The drawing as inline SVG; `salt` keeps its clip paths apart from another drawing's."""
    width, height = SIZES[variant]
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        tips = draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return _inline(buffer.getvalue(), variant, label, tips)


def _inline(drawn: str, variant: str, label: str, tips: Tips) -> Markup:
    """Matplotlib's document as a piece of a page: no prologue, styles, sizes or ids."""
    svg = drawn[drawn.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: (\d+)px [^;\"]*", r"font-size: \1px", svg)
    for name, text in tips.items():
        svg = svg.replace(f'<g id="{name}">', f"<g><title>{html.escape(text)}</title>")
    referred_to = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in referred_to else "", svg)
    for variable, stand_in in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{variable})")
    box = f"0 0 {SIZES[variant][0]} {SIZES[variant][1]}"
    opening = f'<svg class="{variant}" viewBox="{box}" role="img" aria-label="{html.escape(label)}"'
    svg = re.sub(r"^<svg[^>]*", f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink"', svg)
    return Markup(re.sub(r"\n\s*", "\n", svg).strip())
