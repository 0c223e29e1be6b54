"""What the page and the terminal say alike: numbers as text, the comparison's rows, the verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

MODELS = ("dense", "pruned", "finetuned")
MISSING = "-"
PERPLEXITY = re.compile(r"^(?P<text>.+)_ppl_seq(?P<length>\d+)$")
PHASES = ("prefill", "decode")
LOWER = re.compile(
    r"(^|_)(perplexity|ppl|loss|bits|brier|wer|mse|mae|error)(_|$)", flags=re.IGNORECASE
)
UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


class Row(NamedTuple):
    """One line of the comparison: its cells are dense, pruned and fine-tuned."""

    name: str
    note: str
    cells: tuple[str, str, str]
    change: str
    good: bool | None
    """Whether the change is for the better; None where there is none to judge."""


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


def rows(report: Mapping[str, Any]) -> list[Row]:
    """The comparison, top to bottom: what it weighs, how well it predicts, how fast it runs."""
    tuned = final_model(report) == "finetuned"
    weights = _weights(report["params"], tuned)
    models = MODELS if tuned else MODELS[:2]
    metrics = {model: report["metrics"].get(model) or {} for model in models}
    return [*weights, *_metrics(metrics), *speeds(report["speed"])]


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


def verdict(report: Mapping[str, Any]) -> str:
    """The outcome in one sentence of measured facts."""
    params = report["params"]
    facts = []
    if params["removed"] is not None:
        facts.append(
            f"{count(params['removed'])} of {count(params['dense'])} parameters are gone "
            f"({percent(params['ratio_achieved_all'])})"
        )
    told = headline(report)
    if told:
        metric, dense, final = told
        state = "after fine-tuning" if final_model(report) == "finetuned" else "without fine-tuning"
        facts.append(f"{metric} went from {number(dense)} to {number(final)} {state}")
    fast = speeds(report["speed"])[:2]
    facts += [
        f"{row.name.removesuffix(', tokens/s')} runs at {row.change}{doubt(row)}" for row in fast
    ]
    return ("; ".join(facts) or "nothing was measured") + "."


def doubt(row: Row) -> str:
    """What to add to a speed that the noise of its repeats leaves open."""
    return " (within noise)" if row.good is None else ""


def times(factor: float | None) -> str:
    """1.234 -> `1.23x`."""
    return MISSING if factor is None else f"{factor:.2f}x"


def _change(dense: float, final: float) -> str:
    return f"{100 * (final / dense - 1):+.1f} %" if dense else MISSING


def _points(dense: float, final: float) -> str:
    return f"{100 * (final - dense):+.1f} points"


def _row(
    name: str,
    note: str,
    values: Sequence[float | None],
    form: Callable[[float | None], str],
    *,
    less_is_good: bool,
    change: Callable[[float, float], str] = _change,
) -> Row:
    dense, pruned, tuned = values
    final = pruned if tuned is None else tuned
    cells = (form(dense), form(pruned), form(tuned))
    if dense is None or final is None:
        return Row(name, note, cells, MISSING, None)
    good = None if final == dense else (final < dense) == less_is_good
    return Row(name, note, cells, change(dense, final), good)


def _weights(params: Mapping[str, Any], tuned: bool) -> list[Row]:
    # Fine-tuning changes values, never shapes: what it learned is merged into the pruned weights.
    counts = [params["dense"], params["pruned"], params["pruned"] if tuned else None]
    sizes = [params.get(f"bytes_{model}") for model in MODELS]
    return [
        _row("parameters", "tied embeddings counted once", counts, count, less_is_good=True),
        _row("weights on disk", "files of weights", sizes, size, less_is_good=True),
    ]


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    return [_metric(n, [metrics.get(model, {}).get(n) for model in MODELS]) for n in names]


def _metric(name: str, values: Sequence[float | None]) -> Row:
    less = lower_is_better(name)
    is_share = not less and all(0 <= v <= 1 for v in values if v is not None)
    change = _points if is_share else _change
    return _row(name, explain(name), values, number, less_is_good=less, change=change)


def speeds(speed: Mapping[str, Any] | None) -> list[Row]:
    """Prefill and decode of the dense and the pruned model, smallest batch first.

    A change is judged only where each model's median lies outside what the other one's repeats
    ranged over; anything less may be the machine's noise.
    """
    if not speed:
        return []
    batches = sorted(speed["speedup"], key=_batch_size)
    return [_speed(speed, batch, phase) for batch in batches for phase in PHASES]


def _speed(speed: Mapping[str, Any], batch: str, phase: str) -> Row:
    measured = [speed[model][batch][f"{phase}_tokens_per_s"] for model in MODELS[:2]]
    dense, pruned = (m["median"] for m in measured)
    ranges = " and ".join(f"{number(m['min'])} to {number(m['max'])}" for m in measured)
    label = f"{phase} at batch {_batch_size(batch)}, tokens/s"
    note = f"medians; repeats ranged over {ranges}"
    row = _row(label, note, [dense, pruned, None], number, less_is_good=False)
    others = zip((pruned, dense), measured, strict=True)
    is_noise = any(m["min"] <= other <= m["max"] for other, m in others)
    return row._replace(change=times(pruned / dense), good=None if is_noise else row.good)


def protocol(speed: Mapping[str, Any] | None) -> str:
    """How speed was measured, as a sentence; empty where that is not known."""
    known = (speed or {}).get("protocol")
    if not known:
        return ""
    return (
        f"Medians of {known['repeats']} repeats on {known['device']} ({known['threads']} threads, "
        f"{known['dtype']}): prefill of {known['prompt_tokens']} tokens a sequence, then "
        f"{known['new_tokens']} new ones."
    )


def _batch_size(name: str) -> int:
    return int(name.removeprefix("batch_"))
