"""The gate: is the compressed model good enough, by limits that were set before?

A limit asks for a number of the report. Where that number is missing the check fails and says so:
what was not measured has not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from adapruner.config import GateConfig
from adapruner.report.format import PERPLEXITY, final_model, number

REASONS_LENGTH = 500


Report = Mapping[str, Any]


class Asked(NamedTuple):
    """One number that a limit is for; `value` is None where the report does not have it."""

    name: str
    value: float | None
    missing: str = "it was not measured"


class Rule(NamedTuple):
    """How a limit of the configuration is told, which way it holds, and what it asks for."""

    name: str
    least: bool
    ask: Callable[[Report], Iterator[Asked]]


def judge(gate: GateConfig | None, report: Report) -> dict[str, Any]:
    """`passed` (None without a gate) and `checks`: name, value, limit, passed and reason of each.

    `report` is what `report.json` holds; the model that is judged is the one that the run delivers.
    """
    if gate is None:
        return {"passed": None, "checks": []}
    checks = [check for name in LIMITS for check in _checks(name, getattr(gate, name), report)]
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def reasons(judged: Mapping[str, Any]) -> list[str]:
    """Why the gate failed, one line a check that did not pass."""
    return [check["reason"] for check in judged["checks"] if not check["passed"]]


def state(judged: Mapping[str, Any] | None) -> str:
    """`passed`, `failed` or `none`."""
    passed = judged["passed"] if judged else None
    return {True: "passed", False: "failed", None: "none"}[passed]


def brief_reasons(judged: Mapping[str, Any]) -> str:
    """The reasons as one line of at most REASONS_LENGTH characters, for a tag."""
    line = "; ".join(reasons(judged))
    return line if len(line) <= REASONS_LENGTH else line[: REASONS_LENGTH - 1] + "…"


def _checks(name: str, limit: Any, report: Report) -> Iterator[dict[str, Any]]:
    if limit is None:
        return
    rule = LIMITS[name]
    found = list(rule.ask(report))
    if isinstance(limit, Mapping):
        for key, own in limit.items():
            matching = [a for a in found if key in (a.name, _text_of(a.name))]
            for asked in matching or [Asked(key, None, _unknown(found))]:
                yield _check(rule, asked, own)
    else:
        for asked in found or [Asked("", None)]:
            yield _check(rule, asked, limit)


def _check(rule: Rule, asked: Asked, limit: float) -> dict[str, Any]:
    value = asked.value
    passed = value is not None and (value >= limit if rule.least else value <= limit)
    name = f"{rule.name} of {asked.name}" if asked.name else rule.name
    wanted = f"{'at least' if rule.least else 'at most'} {number(limit)}"
    if value is None:
        reason = f"{name}: {asked.missing}; wanted {wanted}"
    else:
        reason = f"{name} is {number(value)}; wanted {wanted}"
        if not passed and number(value) == number(limit):
            reason = f"{name} is {value!r}; wanted {wanted}"
    return {"name": name, "value": value, "limit": limit, "passed": passed, "reason": reason}


def _unknown(found: list[Asked]) -> str:
    names = ", ".join(dict.fromkeys(asked.name for asked in found)) or "nothing"
    return f"it was not measured (measured: {names})"


def _text_of(metric: str) -> str:
    match = PERPLEXITY.match(metric)
    return match["text"] if match else metric


def _retention(report: Report) -> Mapping[str, Any]:
    return (report.get("retention") or {}).get(final_model(report)) or {}


def _mean_retention(report: Report) -> Iterator[Asked]:
    failed = ", ".join(report.get("failed_tasks") or ())
    if failed:
        # A mean over the tasks that happened to work is not the number that was asked for.
        yield Asked("", None, f"no mean, as tasks failed: {failed}")
    else:
        yield Asked("", (_retention(report).get("mean") or {}).get("retention"))


def _task_retention(report: Report) -> Iterator[Asked]:
    for task, kept in (_retention(report).get("tasks") or {}).items():
        yield Asked(task, kept.get("retention"))
    for task, reason in (report.get("failed_tasks") or {}).items():
        yield Asked(task, None, f"the task failed: {reason}")


def _perplexity_ratio(report: Report) -> Iterator[Asked]:
    dense = report["metrics"].get("dense") or {}
    final = report["metrics"].get(final_model(report)) or {}
    for metric in dict.fromkeys([*dense, *final]):
        if PERPLEXITY.match(metric):
            before, after = dense.get(metric), final.get(metric)
            yield Asked(metric, after / before if before and after is not None else None)


def _behaviour(key: str) -> Callable[[Report], Iterator[Asked]]:
    def ask(report: Report) -> Iterator[Asked]:
        texts = (report.get("behaviour") or {}).get("texts") or {}
        for text, compared in texts.items():
            yield Asked(text, (compared.get(final_model(report)) or {}).get(key))

    return ask


def _size_ratio(report: Report) -> Iterator[Asked]:
    dense, pruned = report["params"].get("dense"), report["params"].get("pruned")
    yield Asked("", pruned / dense if dense and pruned is not None else None)


def _speedup(phase: str) -> Callable[[Report], Iterator[Asked]]:
    def ask(report: Report) -> Iterator[Asked]:
        for setting, gained in ((report.get("speed") or {}).get("speedup") or {}).items():
            yield Asked(setting.replace("_", " "), gained.get(phase))

    return ask


LIMITS = {
    "mean_retention": Rule("mean retention", True, _mean_retention),
    "task_retention": Rule("retention", True, _task_retention),
    "perplexity_ratio": Rule("perplexity ratio", False, _perplexity_ratio),
    "agreement": Rule("agreement", True, _behaviour("agreement")),
    "kl_divergence": Rule("KL divergence", False, _behaviour("kl")),
    "size_ratio": Rule("share of parameters left", False, _size_ratio),
    "prefill_speedup": Rule("prefill speedup", True, _speedup("prefill")),
    "decode_speedup": Rule("decode speedup", True, _speedup("decode")),
}
"""Limit of the configuration -> its rule."""
