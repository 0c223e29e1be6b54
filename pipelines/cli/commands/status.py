"""`adapruner status`: the state of each source version."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import config_option, home_option
from pipelines.errors import one_line_errors


@click.command()
@config_option("The recompress file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
@home_option
@one_line_errors()
def status(path: Path, as_json: bool, home: Path) -> None:
    """Show the state of each source version, one line each.

    \b
    new         not tried yet; the next pass compresses it
    due         the next pass tries it again
    running     a process compresses it now; the line names the process
    dead        its process has ended early; the next pass goes on
    waiting     failed; tried again after the time shown
    failed      given up after the last attempt; `recompress --retry-failed` tries again
    changed     refused: its files differ from the compressed ones
    not_ready   the registry does not have it ready
    done        compressed as the version shown

    Nothing is written, so it can be used during a pass.

    Exit codes: 0 done, 2 invalid input, or the registry does not answer.
    """
    from pipelines.recompress.config import RecompressFile

    file = RecompressFile(path)
    from pipelines.recompress.status import print_status

    print_status(file, home, as_json)
