"""`adapruner report`: page and table of a run, or of several side by side."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.errors import one_line_errors


@click.command()
@click.argument(
    "runs", metavar="RUN [RUN ...]", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The HTML page. Default: report.html beside report.json for one run; comparison.html in "
    "the working directory for several.",
)
@one_line_errors()
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Show RUN, a results directory or its report.json; compare several.

    Prints a table and writes one HTML page that opens offline. For one run, the page is its report,
    written again from report.json; for several, a comparison with charts of quality against size
    and speed, and the settings that differ.

    \b
    Examples:
      adapruner report runs/demo
      adapruner report runs/demo runs/demo-30 -o compared.html

    Exit codes: 0 done, 2 invalid input, 1 a failure with its traceback.
    """
    from rich.console import Console

    from adapruner.report import terminal
    from adapruner.report.files import PAGE_FILE, read_report, readable, write_page

    console = Console(soft_wrap=True, highlight=False)
    reports = [read_report(run) for run in runs]
    with readable(file for _, file in reports):
        if len(reports) == 1:
            content, file = reports[0]
            page = output or file.with_name(PAGE_FILE)
            write_page(content, page)
            console.print(terminal.report_summary(content))
        else:
            from adapruner.files import replace_text
            from adapruner.report.runs import compare_runs
            from adapruner.report.runs_page import comparison_page

            comparison = compare_runs([content for content, _ in reports])
            page = output or Path("comparison.html")
            replace_text(page, comparison_page(comparison))
            console.print(terminal.comparison_table(comparison))
    console.print(f"  {page}", markup=False)
