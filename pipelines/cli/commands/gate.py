"""`adapruner gate`: whether the model of a run meets its limits."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelines.cli.options import config_option, set_option
from pipelines.errors import one_line_errors

FAILED = 3


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@config_option(
    "The YAML file of a run, whose evaluation.gate replaces the gate of RUN.", required=False
)
@set_option("Replace one limit, such as evaluation.gate.mean_retention=0.95. Can be repeated.")
@one_line_errors()
def gate(run: Path, path: Path | None, overrides: tuple[str, ...]) -> None:
    """Check RUN, a results directory or its report.json, against a gate.

    The default is the gate in the configuration of the run. Nothing is computed and nothing is
    written: the numbers are those of the report. A limit on a number that the report does not have
    fails.

    \b
    Examples:
      adapruner gate runs/demo
      adapruner gate runs/demo -c strict.yaml
      adapruner gate runs/demo --set evaluation.gate.perplexity_ratio=1.5

    Exit codes: 0 passed, 3 failed, 2 invalid input, 1 a failure with its traceback.
    """
    from adapruner.report import gate as gates
    from adapruner.report.files import read_report, readable
    from pipelines import config_file

    report, file = read_report(run)
    with readable([file]):
        result = gates.evaluate_gate(config_file.read_gate(report, path, overrides), report)
    for check in result["checks"]:
        click.echo(f"{'ok  ' if check['passed'] else 'FAIL'} {check['reason']}")
    click.echo(f"gate {gates.state(result)}: {report['name']}")
    sys.exit(0 if result["passed"] else FAILED)
