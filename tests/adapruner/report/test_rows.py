"""Rows that compare the models."""

from __future__ import annotations

import pytest

from adapruner.report.format import number
from adapruner.report.rows import bars, change_in_points, comparison_row


@pytest.mark.parametrize(
    ("values", "less_is_good", "good"),
    [
        ([1.0, 2.0], True, False),
        ([1.0, 2.0], False, True),
        ([2.0, 2.0], True, None),
        ([1.0, 2.0, 0.5], True, True),
        ([None, 2.0], True, None),
        ([1.0, None], True, None),
    ],
)
def test_change_is_good_in_the_direction_of_the_metric(
    values: list[float | None], less_is_good: bool, good: bool | None
) -> None:
    assert comparison_row("r", "", values, number, less_is_good=less_is_good).good is good


def test_change_is_from_the_dense_to_the_last_model_with_a_value() -> None:
    assert comparison_row("r", "", [2.0, 6.0, 3.0], number).change == "+50.0 %"
    assert comparison_row("r", "", [2.0, 6.0, None], number).change == "+200.0 %"


def test_model_without_a_value_has_a_dash() -> None:
    row = comparison_row("r", "", [2.0, None], number)
    assert row.cells[1:] == ("-", "-") and row.change == "-"


def test_shares_change_in_points() -> None:
    row = comparison_row("r", "", [0.65, 0.6], number, change=change_in_points)
    assert row.change == "-5.0 points"


def test_longest_bar_is_that_of_the_largest_value() -> None:
    assert [bar["share"] for bar in bars({"a": 2.0, "b": 4.0})] == [0.5, 1.0]
    assert [bar["share"] for bar in bars({"a": 0.0})] == [0.0]
    assert bars({}) == []
