"""Several runs as one page: table, charts of quality against size and speed, settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from adapruner.report.page import render
from adapruner.report.results import mean_retention, perplexity_ratio, size_ratio
from adapruner.report.runs import Measure, RunComparison, decode_speedup, shared_perplexity
from adapruner.report.svg import Tips, add_tip, chart, is_wide, mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LABEL = 24
"""Characters of a run's name in a chart."""


class Point(NamedTuple):
    """A run in a chart."""

    run: str
    x: float
    y: float


def comparison_page(comparison: RunComparison) -> str:
    """The comparison as an HTML document, without a reference to anything outside it."""
    return render(
        "runs.html.j2",
        title=f"{', '.join(comparison.names)} · AdaPruner comparison"[:200],
        comparison=comparison,
        charts=charts(comparison),
    )


def charts(comparison: RunComparison) -> dict[str, Markup]:
    """Heading -> chart, for each pair of a quality and a cost that at least two runs have."""
    reports = comparison.reports
    costs: dict[str, Measure] = {
        "share of parameters kept": size_ratio,
        "decode speedup": decode_speedup,
    }
    result: dict[str, Markup] = {}
    for y_name, quality in _qualities(comparison).items():
        for x_name, cost in costs.items():
            values = zip(comparison.names, map(cost, reports), map(quality, reports), strict=True)
            points = [Point(n, x, y) for n, x, y in values if x is not None and y is not None]
            if len(points) > 1:
                chart_id = f"compared{len(result)}"
                result[f"{y_name} against {x_name}"] = _scatter(chart_id, x_name, y_name, points)
    return result


def _qualities(comparison: RunComparison) -> dict[str, Measure]:
    qualities: dict[str, Measure] = {"mean retention": mean_retention}
    metric = shared_perplexity(comparison.reports)
    if metric is None:
        return qualities
    name = f"{metric}, relative to the dense model"
    return {name: lambda report: perplexity_ratio(report, metric), **qualities}


def _scatter(chart_id: str, x_name: str, y_name: str, points: Sequence[Point]) -> Markup:
    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        for run, x, y in points:
            artist = mark(axes, x, y, "accent", width=10)
            add_tip(tips, artist, f"{run}: {x_name} {x:.3g}, {y_name} {y:.3g}")
            label = run if len(run) <= MAX_LABEL else f"{run[: MAX_LABEL - 1]}…"
            place: dict[str, Any] = {"xytext": (0, 10), "textcoords": "offset points"}
            axes.annotate(label, (x, y), ha="center", fontsize=11, parse_math=False, **place)
        axes.margins(0.18 if is_wide(axes) else 0.25, 0.2)
        axes.grid(True, axis="both")
        axes.set_xlabel(x_name)
        return tips

    return chart(chart_id, f"{y_name} against {x_name}", draw)
