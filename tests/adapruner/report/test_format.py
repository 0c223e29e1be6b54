"""Numbers, metrics and settings as text."""

from __future__ import annotations

import pytest

from adapruner.report.format import (
    count,
    duration,
    flat_settings,
    flops,
    lower_is_better,
    metric_note,
    number,
    percent,
    setting,
    size,
    times,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (flops(269_030_016), "269.0 MFLOP"),
        (flops(1.3e13), "13.0 TFLOP"),
        (count(134_515_008), "134.5 M"),
        (count(1_234_000_000), "1.2 B"),
        (count(999), "999"),
        (size(538_060_032), "538.1 MB"),
        (size(2_000_000_000), "2.0 GB"),
        (size(12), "12 B"),
        (number(22.134), "22.13"),
        (number(61_000.4), "61,000"),
        (number(0.0), "0.000"),
        (number(2e-5), "2.00e-05"),
        (number(True), "True"),
        (percent(0.2003), "20.0 %"),
        (times(1.234), "1.23x"),
        (duration(0.25), "0.2 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(7440), "2 h 04 min"),
    ],
)
def test_numbers_are_short_and_have_their_unit(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize("form", [count, size, flops, number, percent, times, setting])
def test_missing_value_is_a_dash(form: object) -> None:
    assert callable(form) and form(None) == "-"


@pytest.mark.parametrize(
    ("metric", "is_lower_better"),
    [
        ("news_ppl_seq128", True),
        ("wikitext_word_perplexity", True),
        ("wikitext_bits_per_byte", True),
        ("truthful_brier_score", True),
        ("rabbits_acc", False),
        ("glossary_exact_match", False),
    ],
)
def test_name_of_a_metric_decides_which_direction_is_better(
    metric: str, is_lower_better: bool
) -> None:
    assert lower_is_better(metric) is is_lower_better


def test_note_of_a_perplexity_has_the_length_of_its_windows() -> None:
    assert "128 tokens" in metric_note("news_ppl_seq128")


def test_settings_keep_all_their_digits() -> None:
    values = {"seed": 1234567, "search": {"vary": ["metric", "widths"], "storage": None}}
    assert list(flat_settings(values)) == [
        ("seed", "1234567"),
        ("search.vary", "metric, widths"),
        ("search.storage", "-"),
    ]
