"""What was cut: structures removed, the widths of each layer, the sensitivity of the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from adapruner.config.pruning import RATIO_BASES
from adapruner.report.format import number
from adapruner.report.results import Report, zero_weights
from adapruner.report.sections.base import Inputs, Section
from adapruner.report.svg import (
    COLOURS,
    Tips,
    add_tip,
    chart,
    is_wide,
    mark,
    scale_values,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

    from adapruner.pruning.plan import LayerPlan

STRUCTURES = {
    "MLP channels": ("mlp_channels", "dense_mlp_channels"),
    "query heads": ("query_heads", "dense_query_heads"),
    "KV groups": ("kv_groups", "dense_kv_groups"),
    "experts": ("experts", "dense_experts"),
    "read by attention": ("attention_in", "residual"),
    "written by attention": ("attention_out", "residual"),
    "read by the MLP": ("mlp_in", "residual"),
    "written by the MLP": ("mlp_out", "residual"),
}
"""Structure -> the fields of a layer with its number after pruning and in the dense model.

The last four are dimensions of the residual stream, in the layout residual_subsets. Layers without
experts, and reports that were written before there were any, have none.
"""

LOWEST_OPACITY = 0.12
"""Opacity of the cell with the smallest kept share; a cell that keeps everything is opaque."""
MAX_LABELLED_LAYERS = 34
"""Up to this many layers, a cell of the wide heat map has room for its number."""

Layer = Mapping[str, Any]


def view(report: Report) -> dict[str, Any]:
    """The sums over the layers, the widths of each layer and the sensitivity of each layer."""
    layers = report["plan"]["layers"]
    sensitivity = report["search"]["sensitivity"]
    return {
        "structures": structures(layers),
        "columns": _present(layers),
        "ratio": report["ratio"],
        "zeros": zero_weights(report),
        "parameters": report["params"]["dense"],
        "requested_of": RATIO_BASES[report["ratio"]["of"]],
        "layers": layers,
        "has_protected": bool(report["plan"]["protected"]),
        "heat_map": heat_map(layers),
        "lowest_share": _lowest_share(layers),
        "sensitivity": sensitivity,
        "sensitivity_chart": sensitivity_chart(sensitivity) if sensitivity else None,
    }


def structures(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """For each structure the sums over the layers, and how many layers lost some of it."""
    result = []
    for name, (field, dense_field) in _present(layers).items():
        kept = [layer[field] for layer in layers]
        dense = [layer[dense_field] for layer in layers]
        result.append(
            {
                "name": name,
                "dense": sum(dense),
                "kept": sum(kept),
                "removed": sum(dense) - sum(kept),
                "share": 1 - sum(kept) / sum(dense),
                "layers": sum(map(int.__lt__, kept, dense)),
            }
        )
    return result


def heat_map(layers: Sequence[Layer]) -> Markup:
    """A column per layer, a row per structure: the more opaque a cell, the more is kept.

    The scale runs from the smallest share that any cell keeps to 1.
    """

    rows = list(_present(layers))

    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        lowest = _lowest_share(layers)
        for column, layer in enumerate(layers):
            for name, share in _shares(layer).items():
                row = rows.index(name)
                strength = (share - lowest) / (1 - lowest) if lowest < 1 else 1.0
                opacity = LOWEST_OPACITY + (1 - LOWEST_OPACITY) * strength
                add_tip(tips, _cell(axes, column, row, opacity), _cell_tip(layer, name))
                if is_wide(axes) and len(layers) <= MAX_LABELLED_LAYERS:
                    _cell_label(axes, column, row, share, opacity)
            if layer["protected"]:
                axes.plot(column, -0.75, ".", color=COLOURS["muted"], markersize=5)
        _heat_map_axes(axes, len(layers), rows)
        return tips

    return chart("widths", "Share of each structure that each layer keeps", draw, height=190)


def sensitivity_chart(sensitivity: Mapping[str, Any]) -> Markup:
    """Divergence against the layer that is cut, a line per removed share; more is stronger."""
    shares, losses = sensitivity["removed"], sensitivity["losses"]

    def draw(axes: Axes) -> Tips:
        tips: Tips = {}
        for position, removed in enumerate(shares):
            values = [row[position] for row in losses]
            strength = (position + 1) / len(shares)
            axes.plot(
                range(len(values)), values, color=COLOURS["accent"], linewidth=2, alpha=strength
            )
            for layer, value in enumerate(values):
                artist = mark(axes, layer, value, "accent", width=5)
                artist.set_alpha(strength)
                text = f"layer {layer} without {removed:.0%}: {number(value)} nats per token"
                add_tip(tips, artist, text)
        scale_values(axes, [max(value, 1e-6) for row in losses for value in row])
        axes.set_xlabel("layer")
        axes.set_ylabel("nats per token")
        whole_numbers(axes)
        return tips

    return chart("sensitivity", "Divergence from the dense model with one layer cut", draw)


def _present(layers: Sequence[Layer]) -> dict[str, tuple[str, str]]:
    """The rows of STRUCTURES that any of the layers has."""
    return {
        name: (kept, dense)
        for name, (kept, dense) in STRUCTURES.items()
        if any(layer.get(dense) for layer in layers)
    }


def _shares(layer: Layer) -> dict[str, float]:
    present = _present([layer])
    return {name: layer[kept] / layer[dense] for name, (kept, dense) in present.items()}


def _lowest_share(layers: Sequence[Layer]) -> float:
    return min(share for layer in layers for share in _shares(layer).values())


def _cell(axes: Axes, column: int, row: int, opacity: float) -> Rectangle:
    from matplotlib.patches import Rectangle

    cell = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, linewidth=0)
    cell.set(facecolor=COLOURS["accent"], alpha=round(opacity, 2))
    axes.add_patch(cell)
    return cell


def _cell_tip(layer: Layer, name: str) -> str:
    kept, dense = (layer[field] for field in STRUCTURES[name])
    note = ", protected" if layer["protected"] else ""
    return f"layer {layer['layer']}: {kept} of {dense} {name}{note}"


def _cell_label(axes: Axes, column: int, row: int, share: float, opacity: float) -> None:
    colour = COLOURS["paper" if opacity > 0.65 else "ink"]
    style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 10}
    axes.text(column, row, f"{100 * share:.0f}", color=colour, **style)


def _heat_map_axes(axes: Axes, layers: int, rows: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(len(rows) - 0.4, -1)
    axes.set_xlim(-0.7, layers - 0.3)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12 if is_wide(axes) else 6))


def _ratio(inputs: Inputs) -> dict[str, Any]:
    """Shares removed; `achieved` is of the same cost as `requested`, as planned."""
    from adapruner.pruning.plan import PruningPlan

    ratio = PruningPlan.read(inputs.stages["search"]).ratio
    return {
        "requested": ratio.requested,
        "of": ratio.of,
        "achieved": ratio.achieved,
        "achieved_all": ratio.achieved_all,
        "achieved_blocks": ratio.achieved_blocks,
    }


def _plan(inputs: Inputs) -> dict[str, Any]:
    """The widths that the plan leaves of each layer, and the zeros where it has some."""
    from adapruner.models.structures import LayerWidths
    from adapruner.pruning.plan import PruningPlan, kept_widths

    plan = PruningPlan.read(inputs.stages["search"])
    layers = []
    for index, (widths, layer_plan) in enumerate(zip(plan.dense, plan.layers, strict=True)):
        dense = LayerWidths(**widths)
        kept = kept_widths(dense, layer_plan)
        layers.append(
            {
                "layer": index,
                "mlp_channels": kept.mlp_channels,
                "dense_mlp_channels": dense.mlp_channels,
                "query_heads": kept.query_heads,
                "dense_query_heads": dense.query_heads,
                "kv_groups": kept.kv_groups,
                "dense_kv_groups": dense.kv_groups,
                "experts": kept.experts,
                "dense_experts": dense.experts,
                "protected": index in plan.protected,
                **_subsets(layer_plan),
            }
        )
    return {
        "layout": plan.layout,
        "model_type": plan.model_type,
        "protected": sorted(plan.protected),
        "layers": layers,
    } | ({"sparsity": plan.sparsity.model_dump()} if plan.sparsity else {})


def _subsets(plan: LayerPlan) -> dict[str, int]:
    """The sizes of a layer's residual subsets, and of the residual stream; empty without any."""
    if plan.residual is None:
        return {}
    sizes = {name: len(subset) for name, subset in plan.residual.subsets.items()}
    return {"residual": plan.residual.size, **sizes}


SECTION = Section("cut", "What was cut", view, "cut.html.j2", {"ratio": _ratio, "plan": _plan})
