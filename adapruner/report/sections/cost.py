"""Cost: parameters, bytes, FLOPs, memory and speed of the dense and the pruned model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from adapruner.report.format import count, flops, number, size, times
from adapruner.report.results import MODELS, Report, final_model, zero_weights
from adapruner.report.rows import Row, comparison_row
from adapruner.report.sections.base import Inputs, Section
from adapruner.report.sections.quality import EVALUATIONS
from adapruner.report.svg import Interval, interval_chart

PHASES = ("prefill", "decode")
ZEROS_NOTE = "stored and computed as dense: counted in parameters, bytes and FLOPs"
SETTING = re.compile(r"batch_(\d+)_prompt_(\d+)")


def view(report: Report) -> dict[str, Any]:
    """The table of costs, the table and the chart of speed, and how speed was measured."""
    return {
        "costs": [*_weight_rows(report), *_cost_rows(report)],
        "has_flops": bool(report.get("cost")),
        "speeds": speed_rows(report),
        "speed_chart": speed_chart(report),
        "protocol": _protocol(report),
        "models": MODELS[:2],
    }


def rows(report: Report) -> list[Row]:
    """Parameters and bytes, then FLOPs and memory, then speed."""
    return [*_weight_rows(report), *_cost_rows(report), *speed_rows(report)]


def speed_rows(report: Report) -> list[Row]:
    """Prefill and decode of the dense and the pruned model, the smallest setting first.

    A change is good or bad only where the median of each model lies outside the range of the other
    one's repeats; a smaller one may be noise.
    """
    speed = report.get("speed")
    if not speed:
        return []
    return [_speed_row(speed, at, phase) for at in speed_settings(speed) for phase in PHASES]


def speed_settings(speed: Mapping[str, Any]) -> list[str]:
    """The settings at which speed was measured, ordered by batch size and prompt length."""
    return sorted(speed["speedup"], key=_batch_and_prompt)


def setting_name(setting: str) -> str:
    """`batch_8_prompt_128` -> `batch 8, prompt 128`."""
    batch, prompt = _batch_and_prompt(setting)
    return f"batch {batch}, prompt {prompt}"


def speedup(report: Report, setting: str, phase: str) -> float | None:
    """Speed of the pruned model divided by that of the dense one; None if it was not measured."""
    speedups = (report.get("speed") or {"speedup": {}})["speedup"]
    result: float | None = speedups.get(setting, {}).get(phase)
    return result


def speed_chart(report: Report) -> Markup | None:
    """The speed of both models at each setting, as shares of the dense model's median."""
    speed = report.get("speed") or {"speedup": {}}
    intervals: dict[str, dict[str, Interval]] = {}
    for phase in PHASES:
        for setting in speed_settings(speed):
            batch, prompt = _batch_and_prompt(setting)
            rates = {m: speed[m][setting][f"{phase}_tokens_per_s"] for m in MODELS[:2]}
            unit = rates["dense"]["median"]
            intervals[f"{phase} {batch} \N{MULTIPLICATION SIGN} {prompt}"] = {
                model: _rate(rate, unit, model) for model, rate in rates.items()
            }
    colours = {"dense": "quiet", "pruned": "accent"}
    return interval_chart("speed", "Speed relative to the dense model", intervals, colours)


def _batch_and_prompt(setting: str) -> tuple[int, int]:
    match = SETTING.fullmatch(setting)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _weight_rows(report: Report) -> list[Row]:
    params, is_tuned = report["params"], final_model(report) == "finetuned"
    # Fine-tuning changes weights and no shapes, so the fine-tuned model has the pruned one's count.
    counts = [params["dense"], params["pruned"], params["pruned"] if is_tuned else None]
    sizes = [report["weight_bytes"][model] for model in MODELS]
    rows = [
        comparison_row("parameters", "tied embeddings counted once", counts, count),
        comparison_row("weights on disk", "size of the weight files", sizes, size),
    ]
    if zeros := zero_weights(report):
        cells = [None, zeros, zeros if is_tuned else None]
        rows.append(comparison_row("zero weights", ZEROS_NOTE, cells, count))
    if branch := (report["recovery"] or {}).get("branch_params"):
        note = "beside the weights, not merged; computed in addition"
        rows.append(comparison_row("parameters of the branches", note, [None, None, branch], count))
    return rows


def _cost_rows(report: Report) -> list[Row]:
    cost = report.get("cost")
    if not cost:
        return []
    protocol, costs = cost["protocol"], [cost[model] for model in MODELS[:2]]
    longest = str(max(protocol["lengths"]))
    notes = {
        "prefill": f"mean over a prompt of {longest} tokens",
        "decode": f"one token at a context of {longest} tokens, itself included",
    }
    result = []
    for phase in PHASES:
        values = [c["flops_per_token"][phase][longest] for c in costs]
        result.append(comparison_row(f"{phase} FLOPs per token", notes[phase], values, flops))
    cache = size(cost["pruned"]["kv_bytes"][longest])
    note = f"pruned: {cache} at {longest} tokens, {protocol['dtype']}"
    cache_bytes = [c["kv_bytes_per_token"] for c in costs]
    result.append(comparison_row("KV cache per token", note, cache_bytes, size))
    return [*result, *_memory_rows(protocol, [c["memory"] or {} for c in costs])]


def _memory_rows(protocol: Mapping[str, Any], memory: list[Mapping[str, Any]]) -> list[Row]:
    if not any(memory):
        return []
    libraries = max(m.get("libraries_bytes") or 0 for m in memory)
    where = f"a new process, {size(libraries)} of it libraries" if libraries else "on CUDA"
    read, written = protocol["memory_tokens"], protocol["memory_new_tokens"]
    note = f"{where}; prompt of {read} tokens, {written} new tokens"
    return [comparison_row("peak memory", note, [m.get("peak_bytes") for m in memory], size)]


def _speed_row(speed: Mapping[str, Any], setting: str, phase: str) -> Row:
    dense, pruned = (speed[model][setting][f"{phase}_tokens_per_s"] for model in MODELS[:2])
    medians = [dense["median"], pruned["median"]]
    ranges = " and ".join(f"{number(m['min'])} to {number(m['max'])}" for m in (dense, pruned))
    name = f"{phase}, {setting_name(setting)}, tokens/s"
    note = f"medians; the repeats range over {ranges}"
    row = comparison_row(name, note, medians, number, less_is_good=False)
    is_noise = any(
        rates["min"] <= other["median"] <= rates["max"]
        for rates, other in ((dense, pruned), (pruned, dense))
    )
    change = times(pruned["median"] / dense["median"])
    return row._replace(change=change, good=None if is_noise else row.good)


def _rate(rate: Mapping[str, float], unit: float, model: str) -> Interval:
    median, low, high = rate["median"], rate["q1"], rate["q3"]
    tip = f"{model} {number(median)} tokens/s, middle half {number(low)} to {number(high)}"
    return Interval(median / unit, low / unit, high / unit, tip)


def _protocol(report: Report) -> str:
    """How speed was measured, as a sentence."""
    protocol = (report.get("speed") or {}).get("protocol")
    if not protocol:
        return ""
    return (
        f"Medians of {protocol['repeats']} repeats on {protocol['device']} "
        f"({protocol['threads']} threads, {protocol['dtype']}): prefill of the prompt, then "
        f"{protocol['new_tokens']} new tokens per sequence."
    )


def _params(inputs: Inputs) -> dict[str, int]:
    """Parameters of the models, tied embeddings counted once."""
    from adapruner.pruning.plan import PruningPlan

    params = PruningPlan.read(inputs.stages["search"]).params
    return {**params.model_dump(), "removed": params.dense - params.pruned}


def _weight_bytes(inputs: Inputs) -> dict[str, int | None]:
    """Model -> bytes of its weight files; null for a model that was not evaluated."""
    from adapruner.evaluation.results import Evaluation
    from adapruner.recovery.results import RecoveryResult

    recovery = inputs.read("finetune", RecoveryResult)
    is_trained = recovery is not None and recovery.is_trained
    sizes: dict[str, int | None] = dict.fromkeys(EVALUATIONS)
    for model, stage in EVALUATIONS.items():
        evaluation = inputs.read(stage, Evaluation)
        if evaluation and (model != "finetuned" or is_trained):
            sizes[model] = evaluation.weight_bytes
    return sizes


def _cost(inputs: Inputs) -> dict[str, Any] | None:
    from adapruner.efficiency.results import Cost

    return inputs.content("measure_efficiency", Cost)


def _speed(inputs: Inputs) -> dict[str, Any] | None:
    from adapruner.efficiency.results import Speed

    return inputs.content("measure_efficiency", Speed)


SECTION = Section(
    "cost",
    "Cost",
    view,
    "cost.html.j2",
    {"params": _params, "weight_bytes": _weight_bytes, "cost": _cost, "speed": _speed},
    rows,
)
