"""Cost: rows of parameters, FLOPs, memory and speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapruner.recovery.results import RecoveryResult
from adapruner.report.sections.cost import (
    rows,
    speed_chart,
    speed_rows,
    speed_settings,
    speedup,
    view,
)
from tests.adapruner.report.reports import SETTING, build, minimal_report, sparse_report, speed


def test_costs_fall_with_the_size_of_the_model(report: dict[str, Any]) -> None:
    changes = {row.name: (row.change, row.good) for row in rows(report)}
    assert changes["parameters"] == ("-20.0 %", True)
    assert changes["prefill FLOPs per token"] == ("-20.0 %", True)
    assert changes["KV cache per token"] == ("+0.0 %", None)
    assert changes["peak memory"] == ("-20.0 %", True)


def test_memory_that_was_not_measured_has_no_row(report: dict[str, Any]) -> None:
    cost = {model: {**report["cost"][model], "memory": None} for model in ("dense", "pruned")} | {
        "protocol": report["cost"]["protocol"]
    }
    names = [row.name for row in rows({**report, "cost": cost})]
    assert "peak memory" not in names and "KV cache per token" in names


@pytest.mark.parametrize(("pruned", "good"), [(125.0, True), (104.0, None), (60.0, False)])
def test_speed_has_a_direction_only_beyond_the_range_of_the_repeats(
    stages: dict[str, Path], pruned: float, good: bool | None
) -> None:
    speed(pruned).write(stages["measure_efficiency"])
    report = build(stages)
    assert [row.good for row in speed_rows(report)] == [good, good]
    assert speed_rows(report)[0].change == f"{pruned / 100:.2f}x"


def test_settings_are_ordered_by_their_numbers(stages: dict[str, Path]) -> None:
    names = ("batch_8_prompt_128", "batch_1_prompt_512", "batch_1_prompt_128")
    speed(125.0, names).write(stages["measure_efficiency"])
    report = build(stages)
    assert speed_settings(report["speed"]) == [
        "batch_1_prompt_128",
        "batch_1_prompt_512",
        "batch_8_prompt_128",
    ]
    assert "decode 8 \N{MULTIPLICATION SIGN} 128: pruned" in (speed_chart(report) or "")


def test_speedup_of_a_setting_that_was_not_measured_is_none(report: dict[str, Any]) -> None:
    assert speedup(report, SETTING, "decode") == 1.25
    assert speedup(report, "batch_64_prompt_8", "decode") is None
    assert speedup({**report, "speed": None}, SETTING, "decode") is None


def test_without_speed_there_is_no_chart_and_no_protocol(tmp_path: Path) -> None:
    values = view(minimal_report(tmp_path))
    assert (values["speeds"], values["speed_chart"], values["protocol"]) == ([], None, "")
    assert [row.name for row in values["costs"]] == ["parameters", "weights on disk"]


def test_zeros_and_branches_have_rows_of_their_own(tmp_path: Path) -> None:
    result = RecoveryResult(method="ast", loss="both", branch_params=7000)
    shown = {row.name: row for row in rows(sparse_report(tmp_path, result))}
    assert shown["zero weights"].cells == ("-", "424.0 k", "424.0 k")
    assert "computed as dense" in shown["zero weights"].note
    assert shown["parameters of the branches"].cells == ("-", "-", "7.0 k")
    assert shown["parameters"].change == "+0.0 %"
