"""The report in a terminal: the gate's verdict, a line a check, and the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from adapruner.report.build import table


def terminal(report: Mapping[str, Any]) -> Group:
    """The gate and the comparison, for a terminal."""
    return Group(*gate_lines(report), table(report))


def gate_lines(report: Mapping[str, Any]) -> list[Text]:
    """The gate's verdict and a line a check; nothing where no gate is set."""
    judged = report.get("gate") or {}
    if judged.get("passed") is None:
        return []
    state, colour = ("passed", "green") if judged["passed"] else ("FAILED", "red")
    lines = [Text(f"gate {state}", style=f"bold {colour}")]
    for check in judged["checks"]:
        mark, style = ("ok  ", "") if check["passed"] else ("FAIL", "red")
        lines.append(Text(f"  {mark} {check['reason']}", style=style))
    return lines
