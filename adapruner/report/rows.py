"""The comparison of the models, row by row, and the outcome in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from adapruner.report.format import MISSING, MODELS, PERPLEXITY, count, explain, final_model, flops, headline, lower_is_better, number, percent, size, times

PHASES = ("prefill", "decode")
SETTING = re.compile(r"batch_(\d+)(?:_prompt_(\d+))?")
Report = Mapping[str, Any]


class Row(NamedTuple):
    """One line of the comparison: its cells are dense, pruned and fine-tuned."""

    name: str
    note: str
    cells: tuple[str, str, str]
    change: str
    good: bool | None
    """Whether the change is for the better; None where there is none to judge."""


def rows(report: Report) -> list[Row]:
    """The comparison, top to bottom: how well it predicts, what it weighs, how fast it runs."""
    return [*quality(report), *weights(report), *costs(report), *speeds(report.get("speed"))]


def quality(report: Report) -> list[Row]:
    """Perplexities first, then the other metrics, the mean retention and the agreement."""
    models = _models(report)
    metrics = {model: report["metrics"].get(model) or {} for model in models}
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    ordered = sorted(names, key=lambda name: PERPLEXITY.match(name) is None)
    found = [_metric(n, [metrics.get(model, {}).get(n) for model in MODELS]) for n in ordered]
    return [*found, *_retention(report), *_behaviour(report)]


def _models(report: Report) -> tuple[str, ...]:
    """Those that there are: without fine-tuning, what that stage passed on is the pruned one."""
    return MODELS if final_model(report) == "finetuned" else MODELS[:2]


def _metric(name: str, values: Sequence[float | None]) -> Row:
    less = lower_is_better(name)
    is_share = not less and all(0 <= v <= 1 for v in values if v is not None)
    change = _points if is_share else _change
    return _row(name, explain(name), values, number, less_is_good=less, change=change)


def _retention(report: Report) -> list[Row]:
    given = report.get("retention") or {}
    kept = {model: given.get(model) for model in _models(report)}
    means = [(kept.get(model) or {}).get("mean") for model in MODELS[1:]]
    if not any(means):
        return []
    values = [1.0, *(mean and mean["retention"] for mean in means)]
    tasks = len(next(found["tasks"] for found in kept.values() if found))
    note = f"mean over {tasks} tasks of the score's share of the dense model's"
    row = _row("retention", note, values, percent, less_is_good=False, change=_points)
    return [row]


def _behaviour(report: Report) -> list[Row]:
    found = []
    for text, compared in ((report.get("behaviour") or {}).get("texts") or {}).items():
        values = [compared.get(m) or {} if m in _models(report) else {} for m in MODELS]
        on = f"on {compared['positions']:,} positions of {text}"
        agreed = [1.0, *(v.get("agreement") for v in values[1:])]
        diverged = [0.0, *(v.get("kl") for v in values[1:])]
        found += [
            _row(
                "same next token",
                f"share of positions with the dense model's likeliest token, {on}",
                agreed,
                percent,
                less_is_good=False,
                change=_points,
            ),
            _row(
                "KL divergence",
                f"of the dense model's next token, nats, {on}",
                diverged,
                number,
                less_is_good=True,
                change=_difference,
            ),
        ]
    return found


def weights(report: Report) -> list[Row]:
    """Parameters and bytes of each model."""
    params, tuned = report["params"], final_model(report) == "finetuned"
    # Fine-tuning changes values, never shapes: what it learned is merged into the pruned weights.
    counts = [params["dense"], params["pruned"], params["pruned"] if tuned else None]
    sizes = [params.get(f"bytes_{model}") for model in MODELS]
    return [
        _row("parameters", "tied embeddings counted once", counts, count, less_is_good=True),
        _row("weights on disk", "files of weights", sizes, size, less_is_good=True),
    ]


def costs(report: Report) -> list[Row]:
    """FLOPs, cache and memory of the dense and the pruned model; empty where not measured."""
    cost = report.get("cost")
    if not cost:
        return []
    told, both = cost["protocol"], [cost["dense"], cost["pruned"]]
    longest = str(max(told["lengths"]))
    notes = {
        "prefill": f"mean over a prompt of {longest} tokens",
        "decode": f"the next token after {longest}, itself counted",
    }
    found = [
        _pair(
            f"{p} FLOPs a token", notes[p], [c["flops_per_token"][p][longest] for c in both], flops
        )
        for p in PHASES
    ]
    cache = [c["kv_bytes_per_token"] for c in both]
    note = f"{size(cost['pruned']['kv_bytes'][longest])} at {longest} tokens, {told['dtype']}"
    found.append(_pair("KV cache a token", f"pruned: {note}", cache, size))
    memory = [c.get("memory") or {} for c in both]
    if any(memory):
        peaks = [m.get("peak_bytes") for m in memory]
        libraries = max(m.get("libraries_bytes") or 0 for m in memory)
        where = f"a fresh process, {size(libraries)} of it libraries" if libraries else "on CUDA"
        note = f"{where}; {told['memory_tokens']} tokens read, {told['memory_new_tokens']} written"
        found.append(_pair("peak memory", note, peaks, size))
    return found


def speeds(speed: Mapping[str, Any] | None) -> list[Row]:
    """Prefill and decode of the dense and the pruned model, smallest setting first.

    A change is judged only where each model's median lies outside what the other one's repeats
    ranged over; anything less may be the machine's noise.
    """
    if not speed:
        return []
    return [_speed(speed, at, phase) for at in settings(speed) for phase in PHASES]


def settings(speed: Mapping[str, Any]) -> list[str]:
    """The names of the settings that speed was measured at, in the order of their numbers."""
    return sorted(speed["speedup"], key=lambda at: [int(n or 0) for n in _numbers(at)])


def setting_name(at: str) -> str:
    """`batch_8_prompt_128` -> `batch 8, prompt 128`."""
    batch, prompt = _numbers(at)
    return f"batch {batch}" + (f", prompt {prompt}" if prompt else "")


def short_name(at: str) -> str:
    """`batch_8_prompt_128` -> batch size times tokens of the prompt."""
    batch, prompt = _numbers(at)
    return f"{batch} \N{MULTIPLICATION SIGN} {prompt}" if prompt else batch


def _numbers(at: str) -> tuple[str, str | None]:
    match = SETTING.fullmatch(at)
    return (match[1], match[2]) if match else ("0", None)


def _speed(speed: Mapping[str, Any], at: str, phase: str) -> Row:
    measured = [speed[model][at][f"{phase}_tokens_per_s"] for model in MODELS[:2]]
    dense, pruned = (m["median"] for m in measured)
    ranges = " and ".join(f"{number(m['min'])} to {number(m['max'])}" for m in measured)
    note = f"medians; repeats ranged over {ranges}"
    row = _pair(f"{phase}, {setting_name(at)}, tokens/s", note, [dense, pruned], number, less=False)
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
        f"{known['dtype']}): prefill of the prompt, then {known['new_tokens']} new tokens a "
        "sequence."
    )


def verdict(report: Report) -> str:
    """The outcome in one sentence of measured facts."""
    params = report["params"]
    facts = []
    if params["removed"] is not None:
        facts.append(
            f"{count(params['removed'])} of {count(params['dense'])} parameters are gone "
            f"({percent(params['ratio_achieved_all'])})"
        )
    told = headline(report)
    state = "after fine-tuning" if final_model(report) == "finetuned" else "without fine-tuning"
    if told:
        metric, dense, final = told
        facts.append(f"{metric} went from {number(dense)} to {number(final)} {state}")
    mean = ((report.get("retention") or {}).get(final_model(report)) or {}).get("mean")
    if mean:
        facts.append(f"{percent(mean['retention'])} of the tasks' scores are kept")
    fast = speeds(report.get("speed"))[:2]
    facts += [
        f"{row.name.removesuffix(', tokens/s')} runs at {row.change}{doubt(row)}" for row in fast
    ]
    return ("; ".join(facts) or "nothing was measured") + "."


def doubt(row: Row) -> str:
    """What to add to a speed that the noise of its repeats leaves open."""
    return " (within noise)" if row.good is None else ""


def _change(dense: float, final: float) -> str:
    return f"{100 * (final / dense - 1):+.1f} %" if dense else MISSING


def _points(dense: float, final: float) -> str:
    return f"{100 * (final - dense):+.1f} points"


def _difference(dense: float, final: float) -> str:
    return f"{final - dense:+.3f}"


def _pair(
    name: str,
    note: str,
    values: Sequence[float | None],
    form: Callable[[float | None], str],
    *,
    less: bool = True,
) -> Row:
    """A row of what fine-tuning leaves as it is."""
    return _row(name, note, [*values, None], form, less_is_good=less)


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
