"""The command line: `adapruner compress -c configs/demo.yaml`.

Each command has a module in `commands`. Heavy modules are imported inside the commands, so that
--help and mistakes are answered at once.
"""

from __future__ import annotations

import click

from pipelines.cli.commands.clean import clean
from pipelines.cli.commands.compare import compare
from pipelines.cli.commands.compress import compress
from pipelines.cli.commands.estimate import estimate
from pipelines.cli.commands.export import export
from pipelines.cli.commands.gate import gate
from pipelines.cli.commands.listen import listen
from pipelines.cli.commands.promote import promote, rollback
from pipelines.cli.commands.recompress import recompress
from pipelines.cli.commands.reference import methods, settings
from pipelines.cli.commands.report import report
from pipelines.cli.commands.schedule import schedule
from pipelines.cli.commands.status import status
from pipelines.cli.commands.work import work
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
    compress, compare, estimate, methods, settings, report, gate, export,
    recompress, status, promote, rollback, schedule, listen, work, clean,
):  # fmt: skip
    main.add_command(command)
