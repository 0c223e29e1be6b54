"""How the page and the terminal tell numbers, metrics and models alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MODELS = ("dense", "pruned", "finetuned")
MISSING = "-"
PERPLEXITY = re.compile(r"^(?P<text>.+)_ppl_seq(?P<length>\d+)$")
LOWER = re.compile(
    r"(^|_)(perplexity|ppl|loss|bits|brier|wer|mse|mae|error)(_|$)", flags=re.IGNORECASE
)
NAMES = {"dense": "dense", "pruned": "pruned", "finetuned": "fine-tuned"}
"""Model of the report -> what people call it."""
FLOPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float | None) -> str:
    """134515008 -> `134.5 M`."""
    if value is None:
        return MISSING
    scale, unit = next(((s, u) for s, u in UNITS if abs(value) >= s), (1, ""))
    return f"{value / scale:.1f} {unit}" if unit else f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes in decimal units: 538060032 -> `538.1 MB`."""
    if value is None:
        return MISSING
    scale, unit = next(((s, u) for s, u in UNITS if value >= s), (1, ""))
    return f"{value / scale:.1f} {'G' if unit == 'B' else unit}B" if unit else f"{value:.0f} B"


def number(value: Any) -> str:
    """About four significant digits, never in powers of ten where that can be read."""
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


def flops(value: float | None) -> str:
    """Floating-point operations: 269030016 -> `269.0 MFLOP`."""
    if value is None:
        return MISSING
    scale, unit = next(((s, u) for s, u in FLOPS if value >= s), (1, ""))
    return f"{value / scale:,.1f} {unit}FLOP"


def percent(share: float | None) -> str:
    """0.2003 -> `20.0 %`."""
    return MISSING if share is None else f"{100 * share:.1f} %"


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
    """Whether a metric of this name is one of surprise or error, not of success."""
    return LOWER.search(metric) is not None


def explain(metric: str) -> str:
    """What a metric's name says of its protocol, in words."""
    found = PERPLEXITY.match(metric)
    if found:
        return f"perplexity, windows of {found['length']} tokens; lower is better"
    return "lower is better" if lower_is_better(metric) else "higher is better"


def final_model(report: Mapping[str, Any]) -> str:
    """The model that the run delivers: fine-tuned, or pruned where nothing was fine-tuned."""
    tuned = report["metrics"].get("finetuned")
    return "finetuned" if tuned and report["finetune"]["method"] != "none" else "pruned"


def headline(report: Mapping[str, Any]) -> tuple[str, float, float] | None:
    """The metric to tell first with its dense and final values; a perplexity where there is one."""
    dense = report["metrics"].get("dense") or {}
    final = report["metrics"].get(final_model(report)) or {}
    shared = [m for m in dense if dense[m] is not None and final.get(m) is not None]
    shared.sort(key=lambda metric: PERPLEXITY.match(metric) is None)
    return (shared[0], dense[shared[0]], final[shared[0]]) if shared else None


def times(factor: float | None) -> str:
    """1.234 -> `1.23x`."""
    return MISSING if factor is None else f"{factor:.2f}x"
