"""The chart of a comparison: for each ratio and layout, each method's distance to the dense model.

Colours have medium lightness on a transparent background, to be readable on white and black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from adapruner.comparison.table import UNREACHABLE, final, heading, panels
from adapruner.report.format import PERPLEXITY

INK, LINE = "#757a80", "#757a8055"
MARKS = (("o", "#3b82f6"), ("s", "#e07b2c"), ("D", "#2f9e66"), ("^", "#a45fd0"), ("v", "#d0506a"))
ROW, HEAD, WIDTH = 0.27, 1.05, 7.6
"""Inches: the height of a method's line, of a panel's title and axis together, a panel's width."""

APART = 0.2
"""Vertical offset between the marks of two texts, as a share of a line."""

WIDE_RANGE = 6.0
"""Ratio of the largest to the smallest value above which ticks are logarithmic."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "comparison",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
}


def write(content: Mapping[str, Any], out: Path) -> None:
    """Writes comparison.svg and comparison.png to `out`; `content` is that of comparison.json."""
    texts = [name for name in content["dense"] if PERPLEXITY.match(name)]
    shown = panels(content)
    heights = [HEAD + ROW * len(rows) for rows in shown.values()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        grid = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)
        for axes, ((ratio, layout), rows) in zip(grid[:, 0], shown.items(), strict=True):
            _panel(axes, rows, texts)
            axes.set_title(heading(content, ratio, layout), loc="left", weight="bold", fontsize=10)
        model = "fine-tuned" if content["finetuned"] else "pruned"
        grid[-1, 0].set_xlabel(
            f"perplexity of the {model} model divided by the dense model's\n"
            "(log scale, lower is better; a bar spans the seeds)"
        )
        handles, labels = grid[0, 0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False)
        figure.savefig(out / "comparison.svg", transparent=True, metadata={"Date": None})
        figure.savefig(out / "comparison.png", transparent=True, dpi=160)


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> None:
    axes.set_xscale("log")
    axes.axvline(1.0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    anything = False
    for index, text in enumerate(texts):
        marker, colour = MARKS[index % len(MARKS)]
        beside = APART * (index - (len(texts) - 1) / 2)  # so that no text hides another
        points = [(y + beside, _reach(row, text)) for y, row in enumerate(rows)]
        finite = [(y, reach) for y, reach in points if reach is not None]
        anything |= bool(finite)
        for y, (lowest, _, highest) in finite:
            axes.plot([lowest, highest], [y, y], color=colour, linewidth=2.2, alpha=0.55)
        axes.plot(
            [mean for _, (_, mean, _) in finite], [y for y, _ in finite], marker,
            color=colour, markersize=5.5, label=text, clip_on=False,
        )  # fmt: skip
    _label_missing(axes, rows, texts)
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if not anything:
        axes.xaxis.set_visible(False)
    low, high = axes.get_xlim()
    wide = high / low > WIDE_RANGE
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(7))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _reach(row: Mapping[str, Any], text: str) -> tuple[float, float, float] | None:
    """Lowest, mean and highest over the seeds, relative to the dense model's value."""
    measured = final(row)
    stat = measured[text] if measured else None
    if stat is None or stat["to_dense"] is None:
        return None
    dense = stat["mean"] / stat["to_dense"]
    return stat["min"] / dense, stat["to_dense"], stat["max"] / dense


def _label_missing(axes: Axes, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> None:
    for y, row in enumerate(rows):
        if row["reason"] is None and any(_reach(row, text) for text in texts):
            continue
        label = UNREACHABLE if row["reason"] is not None else "not finite"
        axes.text(0.07, y, label, transform=axes.get_yaxis_transform(), va="center", style="italic")
