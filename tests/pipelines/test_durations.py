from __future__ import annotations

import pytest

from pipelines.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("30m", 1800), ("12h", 43200), ("366d", 366 * 86400)],
)
def test_a_duration_is_a_number_of_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "m", "1.5h", "-1h", "1 h", "1w", "367d", "99999999d", "²h"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None
