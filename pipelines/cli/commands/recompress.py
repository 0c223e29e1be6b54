"""`adapruner recompress`: compress new versions of registered models."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from adapruner.errors import UserError
from pipelines.cli.options import config_option, home_option
from pipelines.errors import one_line_errors


@click.command()
@config_option("The recompress file, such as configs/recompress.yaml.")
@click.option("--retry-failed", is_flag=True, help="Try failed and waiting versions again now.")
@click.option("--watch", is_flag=True, help="Repeat the pass until SIGTERM or ^C.")
@click.option("--every", metavar="INTERVAL", help="With --watch: 90s, 15m, 6h or 1d. Default: 15m.")
@home_option
@one_line_errors()
def recompress(path: Path, retry_failed: bool, watch: bool, every: str | None, home: Path) -> None:
    """Compress every new version of the registered models that FILE names, once.

    Finds the versions without a compressed version for these settings, compresses each as
    `adapruner compress` does, registers the result, and makes it candidate and champion if it is
    good enough. A second pass does nothing; after a crash it goes on. Events are printed as JSON
    lines (time in UTC, event, source, version, ...), on a terminal as text and a table.

    \b
    Examples:
      adapruner recompress -c configs/recompress.yaml
      adapruner recompress -c configs/recompress.yaml --watch --every 15m
      adapruner status -c configs/recompress.yaml

    \b
    Exit codes:
      0  nothing failed; perhaps there was nothing to do
      1  a failure of the program, with its traceback
      2  invalid input, or the disk is full
      4  a version failed or its files have changed; the others were compressed
      5  nothing was done: the registry does not answer, or other processes hold all the work
    """
    if watch:
        from pipelines.schedules.watch import watch_file

        sys.exit(watch_file(path, home, every))
    if every is not None:
        raise UserError(f"--every {every}: a pass repeats with --watch alone; add --watch")
    from pipelines.recompress.run import run_pass

    sys.exit(run_pass(path, home, retry_failed))
