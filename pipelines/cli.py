"""The command line: `adapruner compress -c configs/demo.yaml`.

One file a command in `pipelines/commands/`. Everything heavy is imported where it is used, so that
--help and mistakes answer at once.
"""

from __future__ import annotations

import sys

import click

from pipelines.commands.compare import compare
from pipelines.commands.compress import compress
from pipelines.commands.gate import gate
from pipelines.commands.listen import listen
from pipelines.commands.methods import methods
from pipelines.commands.promote import promote, rollback
from pipelines.commands.recompress import recompress
from pipelines.commands.report import report
from pipelines.commands.schedule import schedule
from pipelines.commands.status import status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="adapruner")
def main() -> None:
    """AdaPruner: make a causal language model smaller, and say what that cost.

    A checkpoint and some text go in; a smaller checkpoint, a report and a registered MLflow model
    version come out. Every stage is cached: the same command again takes seconds.

    \b
    Start with:
      adapruner compress -c configs/demo.yaml
    """


for command in (
    compress, compare, methods, report, gate,
    recompress, status, promote, rollback, schedule, listen,
):  # fmt: skip
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
