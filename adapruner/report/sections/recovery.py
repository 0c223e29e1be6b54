"""Recovery: the losses of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from adapruner.report.format import number, size
from adapruner.report.results import Report
from adapruner.report.rows import bars
from adapruner.report.sections.base import Inputs, Section
from adapruner.report.svg import COLOURS, Tips, add_tip, chart, mark, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {
    "lora": "LoRA, merged into the weights",
    "ast": "AST, all weights of the projections with their 2:4 masks",
    "grouped": "Projections in 4 bit, adapters merged into the minima of their groups",
}
"""Method -> its description; others are shown by their name."""


def view(report: Report) -> dict[str, Any]:
    """The method, the examples of each domain, and the chart of the losses where there is one."""
    recovery = report.get("recovery") or {"method": "none", "curve": []}
    method, curve = recovery["method"], recovery["curve"]
    return {
        "method": METHODS.get(method, method),
        "steps": len(curve),
        "has_held_out": any(point["held_out"] is not None for point in curve),
        "facts": cost_facts(report),
        "domains": bars(recovery.get("examples_by_domain", {})),
        "chart": loss_chart(curve),
    }


def cost_facts(report: Report) -> list[tuple[str, str]]:
    """Memory of the tuning; sizes and speeds of a model that was tuned in 4 bit."""
    cost = report.get("recovery_cost") or {}
    memory, facts = cost.get("memory"), []
    if memory:
        libraries = memory["libraries_bytes"]
        beyond = size(memory["peak_bytes"] - libraries)
        where = f" beyond the {size(libraries)} of the libraries" if libraries else " on CUDA"
        facts.append(("peak memory of the tuning", beyond + where))
    if cost.get("bytes_4bit"):
        full = size(report["weight_bytes"]["finetuned"])
        facts.append(("weights", f"{full}, in 4 bit {size(cost['bytes_4bit'])} as GGUF"))
    for phase in ("prefill", "decode"):
        rates = [cost[name] for name in ("speed", "speed_4bit") if cost.get(name)]
        if len(rates) == 2:
            full, short = (number(rate[f"{phase}_tokens_per_s"]["median"]) for rate in rates)
            text = f"{full} tokens/s in bfloat16, {short} with int4 weights in torchao"
            facts.append((phase, text))
    return facts


def loss_chart(curve: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The training loss of each step, its running mean, and the loss on held-out text.

    None for fewer than two steps.
    """
    losses = [(point["step"], point["loss"]) for point in curve if point["loss"] is not None]
    held_out = [
        (point["step"], point["held_out"]) for point in curve if point["held_out"] is not None
    ]
    if len(losses) < 2:
        return None

    def draw(axes: Axes) -> Tips:
        from matplotlib.ticker import MaxNLocator

        steps, values = zip(*losses, strict=True)
        axes.plot(steps, values, color=COLOURS["quiet"], linewidth=1.2, alpha=0.7)
        axes.plot(steps, _running_mean(values), color=COLOURS["accent"], linewidth=2.2)
        axes.plot(*zip(*held_out, strict=True) if held_out else ((), ()), color=COLOURS["warm"])
        tips: Tips = {}
        for step, value in held_out:
            artist = mark(axes, step, value, "warm", "D", 7)
            add_tip(tips, artist, f"step {step}: {number(value)} on held-out text")
        axes.set_xlabel("step")
        whole_numbers(axes)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        return tips

    return chart("loss", "Training loss of each fine-tuning step", draw)


def _running_mean(values: Sequence[float]) -> list[float]:
    reach = max(1, len(values) // 12)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _recovery(inputs: Inputs) -> dict[str, Any] | None:
    from adapruner.data.pool import PoolSummary
    from adapruner.recovery.results import RecoveryResult

    content = inputs.content("finetune", RecoveryResult)
    pool = inputs.read("filter_calibration_pool", PoolSummary)
    if content is not None:
        names = [domain.name for domain in pool.domains] if pool else []
        content["examples_by_domain"] = dict(
            zip(names, content["examples_by_domain"], strict=False)
        )
    return content


def _cost(inputs: Inputs) -> dict[str, Any] | None:
    from adapruner.recovery.cost_result import RecoveryCost

    return inputs.content("measure_recovery", RecoveryCost)


SECTION = Section(
    "recovery",
    "Recovery",
    view,
    "recovery.html.j2",
    {"recovery": _recovery, "recovery_cost": _cost},
)
