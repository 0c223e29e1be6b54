"""`adapruner report`: a run's page and table, or a comparison of several."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument(
    "runs", metavar="RUN [RUN ...]", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where the page goes. Default: report.html beside one run's report.json; "
    "comparison.html here for several.",
)
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Show RUN, a results directory or its report.json; compare several.

    Prints a table and writes one HTML page that opens offline: of one run its report, written again
    from report.json; of several, a comparison with charts of quality against size and speed, and
    the settings that differ.

    \b
    Examples:
      adapruner report runs/demo
      adapruner report runs/demo runs/demo-30 -o compared.html

    Exit codes: 0 done, 2 something given can't be used, 1 a failure with its traceback.
    """
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from rich.console import Console

        from adapruner.report import files as report_files

        console = Console(soft_wrap=True, highlight=False)
        found = [report_files.read(run) for run in runs]
        if len(found) == 1:
            from adapruner.report.terminal import terminal

            content, file = found[0]
            page = output or file.with_name(report_files.PAGE_FILE)
            report_files.write_page(content, page)
            console.print(terminal(content))
        else:
            from adapruner.report import runs as comparison
            from adapruner.report import runs_page as comparison_html

            compared = comparison.compare([content for content, _ in found])
            page = output or Path("comparison.html")
            report_files.replace_text(page, comparison_html.page(compared))
            console.print(comparison.table(compared))
        console.print(f"  {page}", markup=False)
