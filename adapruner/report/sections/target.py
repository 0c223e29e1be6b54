"""Target: what was requested, what the plan promises and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapruner.config.pruning import RATIO_BASES, SEMI_STRUCTURED
from adapruner.report.format import number, percent, size
from adapruner.report.results import Report
from adapruner.report.rows import Row, comparison_row
from adapruner.report.sections.base import Inputs, Section


def view(report: Report) -> dict[str, Any] | None:
    """What was requested and planned and, of memory and time, what exactly was counted.

    None where no structure is removed, in the layout semi_structured.
    """
    if report["plan"]["layout"] == SEMI_STRUCTURED:
        return None
    ratio, target = report["ratio"], report.get("target")
    lead = (
        f"{percent(ratio['requested'])} of {RATIO_BASES[ratio['of']]} was requested; the plan "
        f"removes {percent(ratio['achieved'])}."
    )
    facts = []
    if target:
        planned = _change(target["dense"], target["pruned"])
        facts += [("counted", _what(target)), ("planned", planned)]
    if times := measured(report):
        facts.append(("measured", _change(*times)))
    if table := report.get("latency"):
        facts.append(("table", f"medians of {table['repeats']} turns"))
    return {"lead": lead, "facts": facts}


def rows(report: Report) -> list[Row]:
    """The cost as planned and, of a time, as measured."""
    target = report.get("target")
    if not target:
        return []
    if target["unit"] == "bytes":
        return [comparison_row("memory", _what(target), [target["dense"], target["pruned"]], size)]
    planned = [target["dense"] / 1e6, target["pruned"] / 1e6]
    result = [comparison_row("latency, predicted, ms", _what(target), planned, number)]
    if times := measured(report):
        values = [time / 1e6 for time in times]
        result.append(comparison_row("latency, measured, ms", _what(target), values, number))
    return result


def verdict(report: Report) -> list[str]:
    """The outcome as a part of a sentence; nothing for a target that counts parameters."""
    target = report.get("target")
    if not target:
        return []
    base, share = RATIO_BASES[report["ratio"]["of"]], percent(report["ratio"]["achieved"])
    if target["unit"] == "bytes":
        return [f"{share} of {base} is saved"]
    times = measured(report)
    found = f" and {percent(1 - times[1] / times[0])} by measurement" if times else ""
    return [f"{share} of {base} is saved by prediction{found}"]


def measured(report: Report) -> tuple[float, float] | None:
    """Median ns of one pass of the dense and of the pruned model, where they were measured."""
    target, speed = report.get("target"), report.get("speed")
    if not target or target["unit"] != "ns" or not speed:
        return None
    setting = f"batch_1_prompt_{target['tokens']}"
    if setting not in speed["speedup"]:
        return None
    tokens = target["tokens"] if target["phase"] == "prefill" else 1
    rate = f"{target['phase']}_tokens_per_s"
    dense, pruned = (speed[m][setting][rate]["median"] for m in ("dense", "pruned"))
    return 1e9 * tokens / dense, 1e9 * tokens / pruned


def _what(target: Mapping[str, Any]) -> str:
    tokens = number(target["tokens"])
    if target["unit"] == "bytes":
        return f"weights and KV cache of {tokens} tokens, {target['conditions']}"
    passes = {"prefill": f"prefill of {tokens} tokens", "decode": f"one token after {tokens}"}
    return f"{passes[target['phase']]}, batch 1, {target['conditions']}"


def _change(dense: float, pruned: float) -> str:
    return f"{percent(1 - pruned / dense)} removed"


def _target(inputs: Inputs) -> dict[str, Any] | None:
    from adapruner.pruning.plan import PruningPlan

    cost = PruningPlan.read(inputs.stages["search"]).ratio.cost
    return None if cost is None else cost.model_dump(mode="json")


def _latency(inputs: Inputs) -> dict[str, Any] | None:
    from adapruner.efficiency.latency_table import LatencyTable

    return inputs.content("measure_latency", LatencyTable)


SECTION = Section(
    "target",
    "Target",
    view,
    entries={"target": _target, "latency": _latency},
    rows=rows,
)
