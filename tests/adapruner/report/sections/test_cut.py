"""What was cut: widths of the layers, sums, sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.report.page import page
from adapruner.report.sections.cut import structures, view
from tests.adapruner.report.reports import build, sparse_report
from tests.adapruner.report.searches import trials, write_search


def test_layers_have_dense_and_kept_widths(report: dict[str, Any]) -> None:
    first, second = report["plan"]["layers"][:2]
    assert first["protected"] and not second["protected"]
    assert (first["mlp_channels"], first["query_heads"], first["kv_groups"]) == (64, 8, 4)
    assert (second["mlp_channels"], second["query_heads"], second["kv_groups"]) == (35, 6, 3)
    assert second["dense_mlp_channels"] == 64


def test_structures_are_summed_over_the_layers(report: dict[str, Any]) -> None:
    (channels, heads, groups) = structures(report["plan"]["layers"])
    assert (channels["dense"], channels["kept"], channels["removed"]) == (256, 169, 87)
    assert channels["share"] == 1 - 169 / 256
    assert (heads["kept"], groups["kept"], channels["layers"]) == (26, 13, 3)


def test_heat_map_has_a_cell_per_layer_and_structure(report: dict[str, Any]) -> None:
    heat_map = view(report)["heat_map"]
    assert "layer 0: 64 of 64 MLP channels, protected" in heat_map
    assert "layer 3: 6 of 8 query heads" in heat_map
    assert heat_map.count("<title>layer") == 2 * 4 * 3


def test_model_of_which_nothing_was_cut_has_a_heat_map(report: dict[str, Any]) -> None:
    layers = [report["plan"]["layers"][0]] * 2
    values = view({**report, "plan": {**report["plan"], "layers": layers}})
    assert values["lowest_share"] == 1.0
    assert "64 of 64 MLP channels" in values["heat_map"]


def test_sensitivity_is_shown_where_it_was_measured(tmp_path: Path) -> None:
    stages = {"search": write_search(tmp_path, trials(6))}
    chart = view(build(stages))["sensitivity_chart"]
    assert chart is not None and "layer 3 without 95%: 0.1" in chart
    write_search(tmp_path, trials(6), sensitivity=None)
    report = build(stages)
    assert view(report)["sensitivity_chart"] is None
    assert "Sensitivity of each layer" not in page(report)


def test_zeros_are_counted_and_no_ratio_is_claimed(tmp_path: Path) -> None:
    html = page(sparse_report(tmp_path))
    assert "saves no parameters in dense form" in html
    assert "2 of 4 weights of every projection zero" in html
    assert "requested ratio" not in html and "Requested:" not in html
