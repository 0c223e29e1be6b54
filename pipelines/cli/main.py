"""The command line: `adapruner compress -c configs/demo.yaml`.

One module a command. Heavy modules are imported inside the commands, so that --help and mistakes
are answered at once.
"""

from __future__ import annotations

import click

from pipelines.cli.compare import compare
from pipelines.cli.compress import compress
from pipelines.cli.gate import gate
from pipelines.cli.listen import listen
from pipelines.cli.methods import methods
from pipelines.cli.promote import promote, rollback
from pipelines.cli.recompress import recompress
from pipelines.cli.report import report
from pipelines.cli.schedule import schedule
from pipelines.cli.settings import settings
from pipelines.cli.status import status
from pipelines.stack import quiet_libraries


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="adapruner")
def main() -> None:
    """AdaPruner: make a causal language model smaller, and measure what that costs.

    The input is a checkpoint and some text; the output is a smaller checkpoint, a report and a
    registered MLflow model version. Every stage is cached: the same command again takes seconds.

    \b
    Start with:
      adapruner compress -c configs/demo.yaml
    """
    quiet_libraries()


for command in (
    compress, compare, methods, settings, report, gate,
    recompress, status, promote, rollback, schedule, listen,
):  # fmt: skip
    main.add_command(command)
