"""The header: verdict and tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.recovery.results import RecoveryResult
from adapruner.report.sections.headline import tiles, verdict, view
from tests.adapruner.report.reports import (
    build,
    minimal_report,
    settings,
    sparse_report,
    speed,
    write_stages,
)


def test_verdict_names_what_was_removed_lost_and_gained(report: dict[str, Any]) -> None:
    sentence = verdict(report)
    for fact in ("200.3 k", "22.00 to 33.00 after fine-tuning", "93.8 %", "1.25x"):
        assert fact in sentence


def test_verdict_without_fine_tuning_is_about_the_pruned_model(stages: dict[str, Path]) -> None:
    RecoveryResult(method="none").write(stages["finetune"])
    assert "22.00 to 61.00 without fine-tuning" in verdict(build(stages, settings(method="none")))


def test_verdict_of_a_minimal_report_is_about_the_parameters(tmp_path: Path) -> None:
    sentence = verdict(minimal_report(tmp_path))
    assert "parameters were removed" in sentence and "went from" not in sentence


def test_speedup_within_the_noise_is_marked(tmp_path: Path) -> None:
    stages = write_stages(tmp_path / "stages")
    speed(104.0).write(stages["measure_efficiency"])
    report = build(stages)
    assert "1.04x (within noise)" in verdict(report)
    notes = [tile["note"] for tile in tiles(report) if tile["label"].endswith("speed")]
    assert notes and all("within noise" in note for note in notes)


def test_tiles_go_from_the_dense_to_the_final_model(report: dict[str, Any]) -> None:
    shown = {tile["label"]: (tile["value"], tile["detail"]) for tile in tiles(report)}
    assert shown["perplexity"] == ("1.50x", "22.00 → 33.00")
    assert shown["retention"] == ("93.8 %", "0.650 → 0.610")
    assert shown["parameters"] == ("-20.0 %", "1.0 M → 799.7 k")
    assert shown["on disk"] == ("-20.0 %", "4.0 → 3.2 kB")


def test_what_was_not_measured_has_no_tile(tmp_path: Path) -> None:
    labels = [tile["label"] for tile in tiles(minimal_report(tmp_path))]
    assert labels == ["parameters"]


def test_header_has_the_source_and_the_requested_ratio(report: dict[str, Any]) -> None:
    values = view(report)
    assert values["source"] == "model"
    assert values["ratio"]["requested"] == 0.2


def test_a_sparse_model_is_not_called_smaller(tmp_path: Path) -> None:
    report = sparse_report(tmp_path)
    sentence = verdict(report)
    assert "424.0 k of 1.0 M parameters are zero (42.4 %) and none is removed" in sentence
    assert "were removed" not in sentence
    shown = {tile["label"]: (tile["value"], tile["detail"]) for tile in tiles(report)}
    assert shown["parameters"] == ("0.0 %", "1.0 → 1.0 M")
    assert shown["zero weights"] == ("42.4 %", "424.0 k")
    assert view(report)["zeros"] == 424_000
