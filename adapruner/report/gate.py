"""The gate: does the final model meet the limits that were set before the run?

A limit applies to a number of the report. If that number is missing, the check fails with this as
its reason: what was not measured has not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from adapruner.config import GateConfig
from adapruner.report.format import PERPLEXITY, number
from adapruner.report.results import (
    Report,
    final_model,
    mean_retention,
    perplexity_ratio,
    retention_of,
    size_ratio,
)

MAX_REASONS_LENGTH = 500
NOT_MEASURED = "it was not measured"


class Measurement(NamedTuple):
    """A number that a limit applies to; `missing` is the reason where `value` is None."""

    name: str
    value: float | None
    missing: str = NOT_MEASURED


class Limit(NamedTuple):
    """A limit of the configuration: its name in a check, its direction and what it applies to."""

    label: str
    is_minimum: bool
    measurements: Callable[[Report], list[Measurement]]


def evaluate_gate(config: GateConfig | None, report: Report) -> dict[str, Any]:
    """`passed` (None without a gate) and `checks`: name, value, limit, passed and reason of each.

    The limits apply to the final model.
    """
    if config is None:
        return {"passed": None, "checks": []}
    checks: list[dict[str, Any]] = []
    for name, limit in LIMITS.items():
        bound = getattr(config, name)
        if bound is not None:
            checks += _checks(limit, bound, report)
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def reasons(gate: Mapping[str, Any]) -> list[str]:
    """The reason of each check that did not pass."""
    return [check["reason"] for check in gate["checks"] if not check["passed"]]


def brief_reasons(gate: Mapping[str, Any]) -> str:
    """The reasons as one line of at most MAX_REASONS_LENGTH characters, for a tag."""
    line = "; ".join(reasons(gate))
    return line if len(line) <= MAX_REASONS_LENGTH else line[: MAX_REASONS_LENGTH - 1] + "…"


def state(gate: Mapping[str, Any]) -> str:
    """`passed`, `failed` or `none`."""
    return {True: "passed", False: "failed", None: "none"}[gate["passed"]]


def _checks(
    limit: Limit, bound: float | Mapping[str, float], report: Report
) -> list[dict[str, Any]]:
    measurements = limit.measurements(report)
    if not isinstance(bound, Mapping):
        return [_check(limit, m, bound) for m in measurements or [Measurement("", None)]]
    return [
        _check(limit, measurement, value)
        for name, value in bound.items()
        for measurement in _of_name(name, measurements)
    ]


def _of_name(name: str, measurements: Sequence[Measurement]) -> list[Measurement]:
    """The measurements of a task or text; one without a value where there is none."""
    matching = [m for m in measurements if name in (m.name, _text_of(m.name))]
    measured = ", ".join(dict.fromkeys(m.name for m in measurements)) or "nothing"
    return matching or [Measurement(name, None, f"{NOT_MEASURED} (measured: {measured})")]


def _check(limit: Limit, measurement: Measurement, bound: float) -> dict[str, Any]:
    value = measurement.value
    passed = value is not None and (value >= bound if limit.is_minimum else value <= bound)
    name = f"{limit.label} of {measurement.name}" if measurement.name else limit.label
    required = f"required: at {'least' if limit.is_minimum else 'most'} {number(bound)}"
    if value is None:
        reason = f"{name}: {measurement.missing}; {required}"
    else:
        is_near_miss = not passed and number(value) == number(bound)
        reason = f"{name} is {value if is_near_miss else number(value)}; {required}"
    return {"name": name, "value": value, "limit": bound, "passed": passed, "reason": reason}


def _text_of(metric: str) -> str:
    match = PERPLEXITY.match(metric)
    return match["text"] if match else metric


def _mean_retention(report: Report) -> list[Measurement]:
    failed = ", ".join(report["failed_tasks"])
    if failed:
        # A mean over the tasks that happened to work is not the number that the limit is about.
        return [Measurement("", None, f"no mean, as tasks failed: {failed}")]
    return [Measurement("", mean_retention(report))]


def _task_retention(report: Report) -> list[Measurement]:
    tasks = retention_of(report, final_model(report))["tasks"]
    return [
        *(Measurement(task, kept["retention"]) for task, kept in tasks.items()),
        *(
            Measurement(task, None, f"the task failed: {reason}")
            for task, reason in report["failed_tasks"].items()
        ),
    ]


def _perplexity_ratio(report: Report) -> list[Measurement]:
    models = [report["metrics"][model] or {} for model in ("dense", final_model(report))]
    metrics = dict.fromkeys(metric for values in models for metric in values)
    return [
        Measurement(metric, perplexity_ratio(report, metric))
        for metric in metrics
        if PERPLEXITY.match(metric)
    ]


def _behaviour(key: str) -> Callable[[Report], list[Measurement]]:
    def measurements(report: Report) -> list[Measurement]:
        texts = (report.get("behaviour") or {}).get("texts") or {}
        final = final_model(report)
        return [Measurement(name, (text.get(final) or {}).get(key)) for name, text in texts.items()]

    return measurements


def _size_ratio(report: Report) -> list[Measurement]:
    return [Measurement("", size_ratio(report))]


def _speedup(phase: str) -> Callable[[Report], list[Measurement]]:
    def measurements(report: Report) -> list[Measurement]:
        speedups = (report.get("speed") or {}).get("speedup") or {}
        return [Measurement(name.replace("_", " "), s.get(phase)) for name, s in speedups.items()]

    return measurements


LIMITS = {
    "mean_retention": Limit("mean retention", True, _mean_retention),
    "task_retention": Limit("retention", True, _task_retention),
    "perplexity_ratio": Limit("perplexity ratio", False, _perplexity_ratio),
    "agreement": Limit("agreement", True, _behaviour("agreement")),
    "kl_divergence": Limit("KL divergence", False, _behaviour("kl_divergence")),
    "size_ratio": Limit("share of parameters kept", False, _size_ratio),
    "prefill_speedup": Limit("prefill speedup", True, _speedup("prefill")),
    "decode_speedup": Limit("decode speedup", True, _speedup("decode")),
}
"""Limit of the configuration -> its rule."""
