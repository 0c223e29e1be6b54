"""`adapruner status`: how far each source version got."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import config_option, home_option


@click.command()
@config_option("The recompress file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
@home_option
def status(path: Path, as_json: bool, home: Path) -> None:
    """Show what is running, waiting, failed and done, one line a source version.

    \b
    new         not tried yet; the next pass takes it
    due         to be tried again by the next pass
    running     at work now, by the process that is named
    dead        its process is gone; the next pass takes it up again
    waiting     failed, and is tried again after the time shown
    failed      given up after the last attempt; --retry-failed of `recompress` tries again
    changed     its files are no longer those that were compressed; refused
    not_ready   the registry does not have it ready
    done        compressed as the version shown

    Only reads, so it works while a pass runs. Exit codes: 0 shown, 2 something given can't be used
    or the registry does not answer.
    """
    from pipelines.stack import quiet_libraries

    quiet_libraries()
    from pipelines.errors import one_line_errors

    with one_line_errors():
        from pipelines.recompress import status as shown

        shown.show(path, home, as_json)
