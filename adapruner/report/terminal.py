"""Reports in a terminal: the gate and the table of a run, the table of several runs."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from adapruner.report import sections
from adapruner.report.results import MODEL_NAMES, Report
from adapruner.report.runs import RunComparison


def report_summary(report: Report) -> Group:
    """The gate, and the dense, the pruned and the fine-tuned model side by side."""
    return Group(*gate_lines(report), report_table(report))


def gate_lines(report: Report) -> list[Text]:
    """The result of the gate and a line per check; nothing without a gate."""
    gate = report["gate"]
    if gate["passed"] is None:
        return []
    state, colour = ("passed", "green") if gate["passed"] else ("FAILED", "red")
    lines = [Text(f"gate {state}", style=f"bold {colour}")]
    for check in gate["checks"]:
        mark, style = ("ok  ", "") if check["passed"] else ("FAIL", "red")
        lines.append(Text(f"  {mark} {check['reason']}", style=style))
    return lines


def report_table(report: Report) -> Table:
    """The rows of all sections: a column per model, and the change."""
    title = Text(f"{report['name']}: what was lost and what was gained")  # a name is no markup
    table = Table(title=title, title_style="bold")
    table.add_column("", overflow="fold")
    for heading in (*MODEL_NAMES.values(), "change"):
        table.add_column(heading, justify="right")
    for section in sections.SECTIONS:
        for row in section.rows(report):
            table.add_row(*map(Text, (row.name, *row.cells, row.change)))
    return table


def comparison_table(comparison: RunComparison) -> Table:
    """A column per run: the results, then the settings that differ."""
    table = Table(title="runs side by side (best in bold)", title_style="bold")
    table.add_column("", overflow="fold")
    for name in comparison.names:
        table.add_column(Text(name), justify="right", overflow="fold")
    table.add_row("gate", *comparison.gates)
    for line in comparison.lines:
        cells = (Text(c, "bold" if i in line.best else "") for i, c in enumerate(line.cells))
        table.add_row(Text(line.name), *cells)
    table.add_section()
    for difference in comparison.differences:
        table.add_row(Text(difference.name), *map(Text, difference.cells), style="dim")
    return table
