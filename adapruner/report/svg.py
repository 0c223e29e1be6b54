"""Charts as static SVG whose colours are the CSS variables of the page.

Each chart is drawn twice, for a wide and for a narrow screen, and the style sheet shows one of the
two: a drawing that is scaled down to a phone is unreadable. A drawing unit is one CSS pixel.

The table in a terminal has the same sections and no chart, so Matplotlib, which takes a second to
import, is imported where a chart is drawn.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = {"wide": (820, 300), "narrow": (340, 250)}
"""Variant -> width and height, CSS pixels."""

COLOURS = {
    "ink": "#a10001",
    "muted": "#a10002",
    "line": "#a10003",
    "accent": "#a10005",
    "warm": "#a10006",
    "quiet": "#a10007",
    "paper": "#a10008",
}
"""Variable of the style sheet -> the colour that is drawn and then replaced by the variable."""

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
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""

ROW_HEIGHT, ROWS_MARGIN = 34, 64
"""CSS pixels: a row of an interval chart, and its axis and margins."""

Tips = dict[str, str]
"""Id of a drawn mark -> its tooltip."""

Draw = Callable[["Axes"], Tips]


class Interval(NamedTuple):
    """A value with the bounds of its uncertainty, and the tooltip of its mark."""

    value: float
    low: float
    high: float
    tip: str


def chart(name: str, label: str, draw: Draw, height: float | None = None) -> Markup:
    """The wide and the narrow drawing of a chart; `height` in CSS pixels replaces that of SIZES.

    `name` is unique on the page.
    """
    drawings = []
    for variant, (width, usual) in SIZES.items():
        size = (width, height or usual)
        drawings.append(_inline(_draw(f"{name}-{variant}", size, draw), variant, size, label))
    return Markup("\n").join(drawings)


def interval_chart(
    name: str, label: str, rows: Mapping[str, Mapping[str, Interval]], colours: Mapping[str, str]
) -> Markup | None:
    """Marks on whiskers around a line at 1, in per cent; None without rows.

    `rows` is row -> series -> interval, `colours` is series -> a name in COLOURS.
    """
    if not rows:
        return None

    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        axes.axvline(1, color=COLOURS["muted"], linewidth=1.5, dashes=(4, 4), zorder=1)
        for position, (row_name, row) in enumerate(rows.items()):
            for place, (series, interval) in enumerate(row.items()):
                y = position + 0.26 * (place - (len(row) - 1) / 2)
                artist = _whisker(axes, interval, y, colours[series])
                add_tip(tips, artist, f"{row_name}: {interval.tip}")
        _interval_axes(axes, list(rows))
        return tips

    return chart(name, label, draw, height=ROWS_MARGIN + ROW_HEIGHT * len(rows))


def mark(axes: Axes, x: float, y: float, colour: str, marker: str = "o", width: float = 8) -> Any:
    """A mark with a rim in the colour of the page; `colour` is a name in COLOURS."""
    (artist,) = axes.plot(x, y, marker, color=COLOURS[colour], markersize=width)
    artist.set(markeredgecolor=COLOURS["paper"], markeredgewidth=1.2, zorder=3)
    return artist


def mark_selected(axes: Axes, x: float, y: float) -> None:
    """A ring around the mark at a point."""
    (ring,) = axes.plot(x, y, "o", markersize=15, color="none")
    ring.set(markeredgecolor=COLOURS["accent"], markeredgewidth=2)


def add_tip(tips: Tips, artist: Any, text: str) -> None:
    """Gives `artist` the tooltip `text`."""
    name = f"tip{len(tips)}"
    artist.set_gid(name)
    tips[name] = text


def is_wide(axes: Axes) -> bool:
    """Whether `axes` belong to the wide drawing."""
    return axes.get_figure(root=True).get_figwidth() * 72 > SIZES["narrow"][0] + 1  # type: ignore[union-attr]


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x axis at integers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def scale_values(axes: Axes, values: Sequence[float], which: Literal["x", "y"] = "y") -> None:
    """A logarithmic axis for a wide range of values, so that one bad trial hides no other."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    low, high = min(values), max(values)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if low > 0 and high / low > WIDE_RANGE:
        axes.set(**{f"{which}scale": "log"})
        factors = (1, 2, 5, 10) if high / low > 10 else (1, 1.5, 2, 3, 4, 5, 7, 10)
        ticks = [f * 10.0**e for e in range(-3, 12) for f in factors]
        axis.set_ticks([t for t in dict.fromkeys(ticks) if low / 1.1 <= t <= high * 1.1])
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", size=0)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))


def _whisker(axes: Axes, interval: Interval, y: float, colour: str) -> Any:
    bounds = [interval.low, interval.high]
    axes.plot(bounds, [y, y], color=COLOURS[colour], linewidth=2.2, alpha=0.55)
    return mark(axes, interval.value, y, colour, "D" if colour == "warm" else "o")


def _interval_axes(axes: Axes, rows: Sequence[str]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if is_wide(axes) else 3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def _draw(salt: str, size: tuple[float, float], draw: Draw) -> tuple[str, Tips]:
    """Matplotlib's SVG document and the tooltips; `salt` makes the ids of its clip paths unique."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, layout="constrained")
        tips = draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", metadata=no_metadata, transparent=True)
    return buffer.getvalue(), tips


def _inline(
    drawing: tuple[str, Tips], variant: str, size: tuple[float, float], label: str
) -> Markup:
    """The drawing as an element of a page: without prologue, styles, sizes and unused ids."""
    document, tips = drawing
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: (\d+)px [^;\"]*", r"font-size: \1px", svg)
    for name, text in tips.items():
        svg = svg.replace(f'<g id="{name}">', f"<g><title>{html.escape(text)}</title>")
    referenced = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in referenced else "", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    box = f"0 0 {size[0]:g} {size[1]:g}"
    opening = f'<svg class="{variant}" viewBox="{box}" role="img" aria-label="{html.escape(label)}"'
    svg = re.sub(r"^<svg[^>]*", f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink"', svg)
    return Markup(re.sub(r"\n\s*", "\n", svg).strip())
