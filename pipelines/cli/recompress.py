"""`adapruner recompress`: compress what is new in the registry."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelines.cli.options import config_option, home_option
from pipelines.schedules.watch import add_watch_options, watch_file


@click.command()
@config_option("The recompress file, such as configs/recompress.yaml.")
@click.option("--retry-failed", is_flag=True, help="Try what failed or was given up again now.")
@home_option
@add_watch_options
def recompress(path: Path, retry_failed: bool, home: Path, watch: bool, every: str | None) -> None:
    """Compress every new version of the registered models that FILE names, once.

    Looks for versions that have no compressed version by these settings, compresses each as
    `adapruner compress` would, registers it, and makes it candidate and champion if it is good
    enough. Done again it does nothing; after a crash it goes on. What happens is told in JSON lines
    (time in UTC, event, source, version, ...), on a terminal in words and a table.

    \b
    Examples:
      adapruner recompress -c configs/recompress.yaml
      adapruner recompress -c configs/recompress.yaml --watch --every 15m
      adapruner status -c configs/recompress.yaml

    \b
    Exit codes:
      0  nothing failed; perhaps there was nothing to do
      1  a failure of the program, with its traceback
      2  something given can't be used, or the disk is full
      4  a version failed in this pass, or is no longer what was compressed; the others were done
      5  nothing was done: the registry does not answer, or another owner holds all the work
    """
    from pipelines.errors import one_line_errors

    with one_line_errors():
        if watch:
            sys.exit(watch_file(path, home, every))
        from pipelines.stack import quiet_libraries

        quiet_libraries()
        from pipelines.recompress import run as recompression

        sys.exit(recompression.recompress(path, home, retry_failed))
