"""Numbers, metrics and settings as text, the same on the page and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapruner.files import flatten

MISSING = "-"
PERPLEXITY = re.compile(r"^(?P<text>.+)_ppl_seq(?P<length>\d+)$")
LOWER_IS_BETTER = re.compile(
    r"(^|_)(perplexity|ppl|loss|bits|brier|wer|mse|mae|error)(_|$)", flags=re.IGNORECASE
)
BILLIONS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))
SI_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float | None) -> str:
    """134515008 -> `134.5 M`."""
    if value is None:
        return MISSING
    scaled, unit = _scaled(value, BILLIONS)
    return f"{scaled:.1f} {unit}" if unit else f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes in decimal units: 538060032 -> `538.1 MB`."""
    if value is None:
        return MISSING
    scaled, unit = _scaled(value, SI_PREFIXES)
    return f"{scaled:.1f} {unit}B" if unit else f"{value:.0f} B"


def flops(value: float | None) -> str:
    """Floating-point operations: 269030016 -> `269.0 MFLOP`."""
    if value is None:
        return MISSING
    scaled, unit = _scaled(value, SI_PREFIXES)
    return f"{scaled:,.1f} {unit}FLOP"


def number(value: Any) -> str:
    """About four significant digits; powers of ten only below 0.001."""
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    if value and abs(value) < 0.001:
        return f"{value:.2e}"
    digits = next(d for limit, d in ((1000, 0), (100, 1), (10, 2), (0, 3)) if abs(value) >= limit)
    return f"{value:,.{digits}f}"


def named_numbers(values: Mapping[str, float | None]) -> str:
    """The number of a single value; of several `kl 0.412, margin -0.220`."""
    if len(values) == 1:
        return number(*values.values())
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


def percent(share: float | None) -> str:
    """0.2003 -> `20.0 %`."""
    return MISSING if share is None else f"{100 * share:.1f} %"


def times(factor: float | None) -> str:
    """1.234 -> `1.23x`."""
    return MISSING if factor is None else f"{factor:.2f}x"


def duration(seconds: float) -> str:
    """Seconds as `0.3 s`, `42 s`, `3 min 05 s` or `2 h 04 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def lower_is_better(metric: str) -> bool:
    """Whether lower values of the metric of this name are better."""
    return LOWER_IS_BETTER.search(metric) is not None


def metric_note(metric: str) -> str:
    """The protocol and the direction of a metric, derived from its name."""
    perplexity = PERPLEXITY.match(metric)
    if perplexity:
        return f"perplexity, windows of {perplexity['length']} tokens; lower is better"
    return "lower is better" if lower_is_better(metric) else "higher is better"


def setting(value: Any) -> str:
    """A setting or an identifier, with all its digits and without thousands separators."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(setting, value))
    return MISSING if value is None else str(value)


def flat_settings(values: Any) -> Iterator[tuple[str, str]]:
    """Nested mappings as (dotted name, text) pairs, in their order."""
    for name, value in flatten(values):
        yield name, setting(value)


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    scale, unit = next(((s, u) for s, u in units if abs(value) >= s), (1.0, ""))
    return value / scale, unit
