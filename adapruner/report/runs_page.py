"""The comparison of runs as one page: table, charts of quality against size and speed, settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from adapruner.report import runs as comparison
from adapruner.report.runs import Compared
from adapruner.report.svg import COLOURS, Tips, both, is_wide, tip
from adapruner.report.page import render

Measure = Callable[[Any], float | None]


def page(compared: Compared) -> str:
    """The comparison as an HTML document, without a reference to anything outside it."""
    return render(
        "report_comparison.html.j2",
        title=f"{', '.join(compared.names)} · AdaPruner comparison"[:200],
        compared=compared,
        charts=charts(compared),
    )


def charts(compared: Compared) -> dict[str, Markup]:
    """Heading -> chart, for each pair of measures that at least two runs have."""
    reports = compared.reports
    metric = comparison.shared_perplexity(reports)
    qualities: list[tuple[str, Measure]] = []
    if metric:
        name = f"{metric}, times the dense model's"
        qualities.append((name, lambda report: comparison.perplexity_ratio(report, metric)))
    qualities.append(("mean retention", comparison.retention))
    costs: list[tuple[str, Measure]] = [
        ("share of parameters left", comparison.parameters_left),
        ("decode speedup", comparison.decode_speedup),
    ]
    found: dict[str, Markup] = {}
    for y_name, quality in qualities:
        for x_name, cost in costs:
            values = zip(compared.names, map(cost, reports), map(quality, reports), strict=True)
            points = [(n, x, y) for n, x, y in values if x is not None and y is not None]
            if len(points) > 1:
                heading = f"{y_name} against {x_name}"
                found[heading] = _scatter(f"compared{len(found)}", heading, x_name, y_name, points)
    return found


def _scatter(
    name: str, label: str, x_name: str, y_name: str, points: Sequence[tuple[str, float, float]]
) -> Markup:
    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        for run, x, y in points:
            (mark,) = axes.plot(x, y, "o", color=COLOURS["accent"], markersize=10)
            mark.set(markeredgecolor=COLOURS["paper"], markeredgewidth=1.2, zorder=3)
            tip(tips, mark, f"{run}: {x_name} {x:.3g}, {y_name} {y:.3g}")
            shown = run if len(run) <= 24 else f"{run[:23]}…"
            place: dict[str, Any] = {"xytext": (0, 10), "textcoords": "offset points"}
            axes.annotate(shown, (x, y), ha="center", fontsize=11, parse_math=False, **place)
        axes.margins(0.18 if is_wide(axes) else 0.25, 0.2)
        axes.grid(True, axis="both")
        axes.set_xlabel(x_name)
        return tips

    return both(name, label, draw)
