"""What was cut: widths of the layers, sums, sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.report.page import page
from adapruner.report.sections.cut import structures, view
from tests.adapruner.pruning.plans import plan_with_subsets
from tests.adapruner.report.reports import build, sparse_report
from tests.adapruner.report.searches import trials, write_search
from tests.models import small_model


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


def test_residual_subsets_are_rows_of_their_own(tmp_path: Path) -> None:
    model = small_model("llama")
    plan = plan_with_subsets(model)
    search = write_search(tmp_path, trials(6))
    plan.write(search)
    layers = build({"search": search})["plan"]["layers"]
    residual = plan.layers[0].residual
    assert residual is not None
    assert layers[0]["mlp_in"] == len(residual.subsets["mlp_in"])
    read = next(row for row in structures(layers) if row["name"] == "read by the MLP")
    assert (read["dense"], read["kept"]) == (4 * 32, sum(layer["mlp_in"] for layer in layers))
    assert "of 32 written by attention" in view(build({"search": search}))["heat_map"]


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
