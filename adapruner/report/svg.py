"""How the page's charts are drawn: static SVG whose colours are the page's own CSS variables.

Each chart is drawn twice, for a wide and for a narrow screen, and the style sheet shows one: a
drawing scaled down to a phone could not be read. A drawing unit is one CSS pixel.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

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


def scale(axes: Axes, values: Sequence[float]) -> None:
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


def tip(tips: Tips, artist: Any, text: str) -> None:
    """Let `artist` say `text` when it is pointed at."""
    name = f"tip{len(tips)}"
    artist.set_gid(name)
    tips[name] = text


def both(
    name: str, label: str, draw: Callable[[Axes], Tips], height: float | None = None
) -> Markup:
    """The wide and the narrow drawing by `draw`; `height` in CSS pixels replaces that of SIZES."""
    drawings = []
    for variant, (width, usual) in SIZES.items():
        drawings.append(_svg(f"{name}-{variant}", variant, (width, height or usual), label, draw))
    return Markup("\n").join(drawings)


def is_wide(axes: Axes) -> bool:
    """Whether it is the wide drawing that is being made."""
    return axes.get_figure(root=True).get_figwidth() * 72 > SIZES["narrow"][0] + 1  # type: ignore[union-attr]


def _svg(
    salt: str,
    variant: str,
    size: tuple[float, float],
    label: str,
    draw: Callable[[Axes], Tips],
) -> Markup:
    """The drawing as inline SVG; `salt` keeps its clip paths apart from another drawing's."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, layout="constrained")
        tips = draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return _inline(buffer.getvalue(), variant, size, label, tips)


def _inline(drawn: str, variant: str, size: tuple[float, float], label: str, tips: Tips) -> Markup:
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
    box = f"0 0 {size[0]:g} {size[1]:g}"
    opening = f'<svg class="{variant}" viewBox="{box}" role="img" aria-label="{html.escape(label)}"'
    svg = re.sub(r"^<svg[^>]*", f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink"', svg)
    return Markup(re.sub(r"\n\s*", "\n", svg).strip())
