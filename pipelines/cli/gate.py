"""`adapruner gate`: is a run's model good enough?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelines.cli.options import config_option, set_option

FAILED = 3


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@config_option(
    "A run's YAML file, whose evaluation.gate is judged by instead of the run's own.",
    required=False,
)
@set_option(
    "Replace one limit, such as evaluation.gate.mean_retention=0.95. Can be given many times."
)
def gate(run: Path, path: Path | None, overrides: tuple[str, ...]) -> None:
    """Judge RUN, a results directory or its report.json, by a gate.

    Without options, by the gate that the run was configured with. Nothing is computed again and
    nothing is written: the numbers are those of the report. A number that a limit asks for and the
    report does not have fails the gate.

    \b
    Examples:
      adapruner gate runs/demo
      adapruner gate runs/demo -c strict.yaml
      adapruner gate runs/demo --set evaluation.gate.perplexity_ratio=1.5

    Exit codes: 0 passed, 3 failed, 2 something given can't be used, 1 a failure with its traceback.
    """
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from adapruner.report import gate as library
        from adapruner.report.files import read
        from pipelines import config_file

        report, _ = read(run)
        judged = library.judge(config_file.read_gate(report, path, overrides), report)
        for check in judged["checks"]:
            click.echo(f"{'ok  ' if check['passed'] else 'FAIL'} {check['reason']}")
        click.echo(f"gate {library.state(judged)}: {report['name']}")
    sys.exit(0 if judged["passed"] else FAILED)
